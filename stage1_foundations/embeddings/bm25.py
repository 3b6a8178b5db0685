"""BM25 behind mteb's SearchProtocol: the row that every table of embeddings must have.

No training, no vectors: a passage scores by the words it shares with the query, rare words more (Robertson and
Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", equation 3.15). Counted by the library bm25s.
"""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

K1, B = 1.5, 0.75
WORD = re.compile(r"[㐀-鿿]|[^\W_㐀-鿿]+")  # a Chinese character, or a run of letters and digits
# a short list: without it "what is the" decides a ranking of short passages
STOP_WORDS = """a an and are as at be but by for from had has have he her his how i if in into is it its me my no not of
on or our she so such that the their them then there these they this to was we were what when where which who why will
with you your do does did can"""
STOPPED = frozenset(STOP_WORDS.split())


def bm25_words(text: str) -> list[str]:
    """The words of a text, lower case, without stop words; Chinese as single characters and pairs of them."""
    words = [word for word in WORD.findall(text.lower()) if word not in STOPPED]
    pairs = [a + b for a, b in zip(words, words[1:], strict=False) if len(a) == len(b) == 1 and a > "㏿" and b > "㏿"]
    return words + pairs


class Bm25:
    """Search by words. The scores of one corpus live from `index` to the next `index`.

    Attributes:
        name: for tables.
    """

    name = "bm25"

    @property
    def mteb_model_meta(self) -> "ModelMeta":
        """The card: name and settings are the key of mteb's result cache."""
        from mteb.models.model_meta import ModelMeta  # seconds, for whoever only searches

        return ModelMeta(
            loader=None, name="course-lab/bm25", revision=f"k1-{K1}-b-{B}-words-2", release_date=None, languages=None,
            n_parameters=0, memory_usage_mb=None, max_tokens=None, embed_dim=None, license=None, open_weights=True,
            public_training_code=None, public_training_data=None, framework=[], similarity_fn_name=None,
            use_instructions=False, training_datasets=set(), model_type=["sparse"],
        )  # fmt: skip

    def index(self, corpus: Any, **kwargs: Any) -> None:
        """Count a corpus: a Dataset with the columns id, text and perhaps title."""
        titles = corpus["title"] if "title" in corpus.column_names else [""] * len(corpus)
        self.fit(list(corpus["id"]), [f"{title} {text}" for title, text in zip(titles, corpus["text"], strict=True)])

    def fit(self, ids: list[str], texts: list[str]) -> None:
        """Count passages."""
        import bm25s

        self._ids = ids
        self._index = bm25s.BM25(k1=K1, b=B)
        words = [bm25_words(text) for text in texts]
        self._index.index(words if any(words) else [["-"], *words[1:]], show_progress=False)

    def search(self, queries: Any, *, top_k: int, **kwargs: Any) -> dict[str, dict[str, float]]:
        """The best `top_k` passages of each query: query id -> passage id -> score."""
        return {query: self.rank(text, top_k) for query, text in zip(queries["id"], queries["text"], strict=True)}

    def rank(self, query: str, top_k: int) -> dict[str, float]:
        """The best passages of one query; those without a word of it are left out."""
        words = [word for word in bm25_words(query) if word in self._index.vocab_dict]
        if not words:
            return {}
        scores = self._index.get_scores(words)
        best = np.argsort(-scores, kind="stable")[:top_k]
        return {self._ids[row]: float(scores[row]) for row in best if scores[row] > 0}
