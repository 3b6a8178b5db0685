"""Each test names the bug that it catches."""

import sqlite3

import numpy as np
import pytest

import data
from labkit.errors import LabError
from stage1_foundations.embeddings.encoders import load_encoder
from stage2_rag_finetune_deploy.rag.dense import DenseRetriever, window_vectors
from stage2_rag_finetune_deploy.rag.hybrid import HybridRetriever
from stage2_rag_finetune_deploy.rag.late_interaction import LateInteraction, max_sim, token_rarity
from stage2_rag_finetune_deploy.rag.retriever import Corpus
from stage2_rag_finetune_deploy.rag.token_vectors import TokenCache, TokenEncoder, TokenVectors
from stage2_rag_finetune_deploy.rag.variants import VARIANTS, Parts, load_token_encoder, make_variant
from stage2_rag_finetune_deploy.vector_db.filters import Eq

TEXTS = {
    "bees": "Honey bees tell each other where food is by dancing. Karl von Frisch decoded the dance.",
    "tin": "Because tin was cheap and did not rust, it was used to line cans of food.",
    "bridge": "The bridge was opened in 1932 after six years of work. It carries eight lanes of traffic.",
    "moon": "The tide follows the moon. It rises and falls twice in a day.",
}


def tokens(vectors: list[list[float]], ids: list[int] | None = None) -> TokenVectors:
    return TokenVectors.of(np.array(ids or range(len(vectors))), np.array(vectors, np.float32))


def test_eight_bits_keep_the_vectors():
    """Catches: one scale for all tokens, lengths of the codes instead of the vectors."""
    sizes = np.array([[1], [9], [0.1], [3], [1]], np.float32)
    vectors = np.random.default_rng(0).standard_normal((5, 384)).astype(np.float32) * sizes
    kept = TokenVectors.of(np.arange(5), vectors)
    np.testing.assert_allclose(kept.vectors, vectors, atol=1.01 * np.abs(vectors).max(axis=1).max() / 254)
    np.testing.assert_allclose(kept.lengths, np.linalg.norm(vectors, axis=1), rtol=0.01)
    assert np.isfinite(TokenVectors.of(np.arange(1), np.zeros((1, 4))).vectors).all()


def test_windows_by_hand():
    """Catches: steps of a whole window, a last stretch that misses the end, means that are not normalised."""
    passage = tokens([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]])
    got = window_vectors(passage, 2)
    np.testing.assert_allclose(got, [[1, 0], [0.7071, 0.7071], [0, 1], [0, 1]], atol=0.01)
    np.testing.assert_allclose(window_vectors(passage, 4), [[0.7071, 0.7071], [0, 1]], atol=0.01)


@pytest.mark.parametrize("window", [0, 5, 6, 100])
def test_a_window_as_long_as_the_passage_is_its_mean(window):
    """Catches: no vector, or a second one of the tail, for a short passage."""
    passage = tokens([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]])
    windows = window_vectors(passage, window)
    np.testing.assert_allclose(windows[0], np.array([2, 3]) / np.sqrt(13), atol=0.01)
    assert len(windows) == 1 or window == 5


def test_max_sim_by_hand():
    """Catches: the maximum over the query instead of the passage, weights that are not normalised, no nearness."""
    query = np.array([[1.0, 0.0], [0.0, 1.0]])
    passage = np.array([[1.0, 0.0], [-0.6, -0.8], [-0.6, -0.8], [0.0, 1.0]])  # both partners, three steps apart
    weights = np.array([3.0, 1.0])
    assert max_sim(query, passage, weights, 9) == pytest.approx(1.0)
    # within one token the best is the first: 3 * 1 + 1 * 0
    assert max_sim(query, passage, weights, 1) == pytest.approx((1.0 + 3 / 4) / 2)
    assert max_sim(query, passage[:2], weights, 1) == pytest.approx((3 / 4 + 3 / 4) / 2)


def test_rarity_of_what_every_passage_has_is_nothing():
    """Catches: special tokens and "the" that decide; a word counted as often as it occurs."""
    passages = [tokens([[1.0], [1.0], [1.0]], [7, 3, 3]) for _ in range(98)] + [tokens([[1.0]], [7])] * 2
    rarity = token_rarity(passages, 10)
    assert rarity[7] < 0.01 and rarity[3] == pytest.approx(np.log1p(2.5 / 98.5)) and rarity[5] > 5


def test_a_damaged_row_is_read_again(tmp_path):
    """Catches: half a vector taken for a whole one."""
    cache = TokenCache("test", "1", tmp_path)
    item = tokens([[1.0, 2.0], [3.0, 4.0]])
    cache.write({b"a": item, b"b": item})
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE texts SET vectors = ? WHERE key = ?", (b"\0\0\0\1", b"a"))
    found = cache.read({b"a", b"b", b"c"})
    assert found.keys() == {b"b"}
    np.testing.assert_array_equal(found[b"b"].vectors, item.vectors)


def test_a_file_that_is_no_cache_is_named(tmp_path):
    """Catches: SQLite's error as a traceback."""
    cache = TokenCache("test", "1", tmp_path)
    cache.path.write_bytes(b"no database, " * 500)
    with pytest.raises(LabError, match="token vectors"):
        cache.read({b"a"})


def test_another_revision_is_another_file(tmp_path):
    """Catches: vectors of an older model under a new one."""
    assert TokenCache("test", "1", tmp_path).path != TokenCache("test", "2", tmp_path).path


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Parts:
    """The four passages, read by MiniLM."""
    encoder = TokenEncoder(data.fetch("all-minilm-l6-v2"), "minilm", cache=tmp_path_factory.mktemp("cache"))
    metadata = {name: {"long": len(text) > 80} for name, text in TEXTS.items()}
    return Parts(Corpus.from_texts(TEXTS, metadata), encoder)


@pytest.mark.assets
def test_the_mean_is_the_encoders_embedding(parts):
    """Catches: padding or a missing special token in the mean, tokens of another text of the batch."""
    ours = np.stack([passage.mean for passage in parts.encoder.passages(list(TEXTS.values()))])
    theirs = load_encoder("minilm").encode_now(list(TEXTS.values()), "passage")
    # bfloat16 and 8-bit numbers: 1 - cosine is below 0.001 (0.0002 measured)
    assert (1 - (ours * theirs).sum(axis=1)).max() < 1e-3


@pytest.mark.assets
def test_a_long_text_is_read_to_its_end(parts):
    """Catches: everything after 256 word pieces cut off in silence."""
    filler = "The weather of that week was neither warm nor cold. " * 40
    corpus = Corpus.from_texts({"long": filler + TEXTS["bees"], "plain": filler + "Nothing else happened then."})
    retriever = DenseRetriever(corpus, parts.encoder)
    assert retriever.retrieve("who decoded the dance of the bees?", 1)[0].id == "long"
    assert len(parts.encoder.passages([corpus.texts[0]])[0].ids) > 400


@pytest.mark.assets
@pytest.mark.parametrize("name", ["dense", "windows", "bm25", "rm3", "rrf", "hybrid", "late", "spelling"])
def test_every_variant_answers(parts, name):
    """Catches: a variant that was put together wrongly."""
    retriever = make_variant(name, parts)
    assert retriever.retrieve("who decoded the dance of the bees?", 2)[0].id == "bees"
    scores = [hit.score for hit in retriever.retrieve("how many lanes of traffic are on the bridge?", 4)]
    assert scores == sorted(scores, reverse=True)
    assert {hit.id for hit in retriever.retrieve("food", 4, Eq("long", False))} <= {"tin", "moon"}


@pytest.mark.assets
def test_late_interaction_only_scores_what_it_gets(parts):
    """Catches: passages mixed up when the hits come in another order than the corpus."""
    late = LateInteraction(parts.corpus, parts.encoder)
    hits = HybridRetriever([parts.windows, parts.bm25]).retrieve("what line cans of food?", 4)
    scores = dict(zip([hit.id for hit in hits], late.score("what lines cans of food?", hits), strict=True))
    back = dict(zip([hit.id for hit in hits[::-1]], late.score("what lines cans of food?", hits[::-1]), strict=True))
    assert scores == pytest.approx(back, abs=1e-5) and max(scores, key=scores.get) == "tin"


@pytest.mark.assets
def test_queries_are_remembered_and_forgotten(parts):
    """Catches: a measured time that is a memory's."""
    parts.encoder.remember(["one question", "two questions"])
    known = parts.encoder.query("one question")
    assert parts.encoder.query("one question") is known
    parts.encoder.forget()
    assert parts.encoder.query("one question") is not known


@pytest.mark.assets
@pytest.mark.parametrize("text", ["", "   ", "🐝" * 3, "a" * 5000])
def test_odd_queries(parts, text):
    """Catches: an empty or very long question that ends in an index error or NaN."""
    hits = make_variant("late", parts).retrieve(text, 3)
    assert all(np.isfinite(hit.score) for hit in hits)


def test_unknown_names_are_refused():
    """Catches: a typo in a config that ends in a KeyError."""
    with pytest.raises(LabError):
        make_variant("lates", Parts(Corpus.from_texts(TEXTS), None))
    with pytest.raises(LabError):
        load_token_encoder("random")
    assert all(row.against is None or row.against in VARIANTS for row in VARIANTS.values())


def test_odd_windows_are_refused():
    """Catches: a window of 15, whose half is no whole step."""
    with pytest.raises(LabError):
        DenseRetriever(Corpus.from_texts(TEXTS), None, window=15)
