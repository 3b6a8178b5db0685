"""One chunker on one exam: cut, embed, search, judge; and what the index cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from llama_index.core.node_parser import get_leaf_nodes
from llama_index.core.schema import BaseNode, MetadataMode

from labkit.timing import Timer
from stage1_foundations.embeddings.encoders import Encoder
from stage2_rag_finetune_deploy.chunking.dispatch import make_chunker
from stage2_rag_finetune_deploy.chunking.exam import Exam
from stage2_rag_finetune_deploy.chunking.relevance import Context, Judgement, delivered, judge
from stage2_rag_finetune_deploy.chunking.sizes import TokenCounter

WINDOWS = {"minilm": 256, "e5": 512}  # tokens that the encoder reads, two of them its own
CALIBRATION = 8
SEARCHED = 500  # chunks of a ranking; nobody looks further


@dataclass(frozen=True)
class Row:
    """A line of an exam's table.

    Attributes:
        name: what the line is called.
        chunker: of `dispatch.CHUNKERS`, or "dispatch".
        role: "right" (what dispatch.py would take), "wrong", or "".
        options: fields of the chunker that are not the exam's.
    """

    name: str
    chunker: str
    role: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a chunker did on an exam; sizes in tokens of the encoder, times in seconds.

    Attributes:
        chunks: what is embedded and searched.
        sizes: of what is delivered, one for each chunk.
        cut_seconds: finding the borders, without embedding.
        embed_seconds: embedding the chunks, and the sentences that the chunker itself looks at: computed from their
            number and tokens by `EncodingCost`, because most of it comes out of the cache.
        judgements: one a question, in the exam's order.
    """

    row: Row
    chunks: int
    sizes: list[int]
    cut_seconds: float
    embed_seconds: float
    judgements: list[Judgement]

    def values(self, measure: str) -> np.ndarray:
        """One measure for all questions, (N,)."""
        return np.array([getattr(judgement, measure) for judgement in self.judgements])


class MeteredEncoder(Encoder):
    """An encoder that notes what it was asked to encode, and how long that took."""

    def __init__(self, encoder: Encoder) -> None:
        self.inner, self.name, self.dimensions = encoder, encoder.name, encoder.dimensions
        self.prompts, self.revision, self.cached = encoder.prompts, encoder.revision, encoder.cached
        self.folder = getattr(encoder, "folder", None)  # where its tokenizer is
        self.texts: list[str] = []
        self.seconds = 0.0

    def embed(self, texts: list[str], prompt: str = "") -> np.ndarray:
        """See `Encoder.embed`."""
        return self.inner.embed(texts, prompt)

    def encode(self, texts: Sequence[str], kind: str) -> np.ndarray:
        """See `Encoder.encode`."""
        with Timer() as timer:
            vectors = self.inner.encode(texts, kind)
        self.seconds += timer.seconds
        self.texts += texts
        return vectors


class EncodingCost:
    """Seconds to encode texts: so many a text and so many a token, fitted on a few short and a few long ones.

    Measured once a run, so that a run whose vectors are all in the cache gives the same column as a first one.
    """

    def __init__(self, encoder: Encoder, counter: TokenCounter, texts: Sequence[str]) -> None:
        self.counter, self.window = counter, WINDOWS.get(encoder.name, 256) - 2
        ordered = sorted(texts, key=len)
        encoder.encode_now(ordered[:2], "passage")  # loads the weights
        samples = [ordered[:CALIBRATION], ordered[-CALIBRATION:]]
        seconds = []
        for sample in samples:
            with Timer() as timer:
                encoder.encode_now(sample, "passage")
            seconds.append(timer.seconds)
        counts = np.array([[len(sample), self.tokens(sample)] for sample in samples], np.float64)
        self.each, self.token = np.linalg.lstsq(counts, np.array(seconds), rcond=None)[0]
        if self.each < 0 or self.token < 0:  # texts of one length: all by tokens
            self.each, self.token = 0.0, sum(seconds) / max(1.0, counts[:, 1].sum())

    def tokens(self, texts: Sequence[str]) -> int:
        """Tokens that the encoder reads of the texts."""
        return sum(min(size, self.window) for size in self.counter.sizes(texts))

    def seconds(self, texts: Sequence[str]) -> float:
        """What encoding the texts costs on this machine, now."""
        return float(self.each * len(texts) + self.token * self.tokens(texts))


def embedded_texts(nodes: Sequence[BaseNode]) -> list[str]:
    """What the encoder reads of each node: the text, behind the metadata that are to be embedded."""
    return [node.get_content(MetadataMode.EMBED) for node in nodes]


def run_row(exam: Exam, row: Row, encoder: Encoder, cost: EncodingCost, cap: int, overlap: int, budget: int) -> Result:
    """Cut the exam's documents with a chunker, index the chunks, and ask all questions."""
    metered = MeteredEncoder(encoder)
    chunker = make_chunker(row.chunker, **{"cap": cap, "overlap": overlap, "encoder": metered, **row.options})
    with Timer() as timer:
        nodes = chunker.get_nodes_from_documents(exam.documents)
    cut_seconds, looked_at = timer.seconds - metered.seconds, list(metered.texts)
    leaves = get_leaf_nodes(nodes)
    texts = embedded_texts(leaves)
    contexts, positions = contexts_of(leaves, nodes, exam, chunker.counter)
    queries = encoder.encode([question.text for question in exam.questions], "query")
    scores = queries @ encoder.encode(texts, "passage").T  # cosines: (questions, chunks)
    judgements = [
        judge(question, ranked(scores[number], contexts, positions), contexts, budget)
        for number, question in enumerate(exam.questions)
    ]
    sizes = [contexts[position].size for position in positions]
    return Result(row, len(leaves), sizes, cut_seconds, cost.seconds([*texts, *looked_at]), judgements)


def contexts_of(
    leaves: Sequence[BaseNode], nodes: Sequence[BaseNode], exam: Exam, counter: TokenCounter
) -> tuple[list[Context], list[int]]:
    """What the reader gets: the distinct contexts, and for each leaf the number of its own."""
    by_id = {node.node_id: node for node in nodes}
    text = {document.id_: document.text for document in exam.documents}
    keys = [delivered(leaf, by_id) for leaf in leaves]
    distinct = list(dict.fromkeys(keys))
    said = {(node.ref_doc_id, node.start_char_idx, node.end_char_idx): node.get_content() for node in nodes}
    sizes = counter.sizes([said.get(key) or text[key[0]][key[1] : key[2]] for key in distinct])
    number = {key: place for place, key in enumerate(distinct)}
    return [Context(*key, size) for key, size in zip(distinct, sizes, strict=True)], [number[key] for key in keys]


def ranked(scores: np.ndarray, contexts: Sequence[Context], positions: Sequence[int]) -> list[Context]:
    """Contexts by the score of their best chunk, best first, each once; equal scores in the order of the documents."""
    order = np.argsort(-scores, kind="stable")[:SEARCHED]
    return [contexts[position] for position in dict.fromkeys(positions[leaf] for leaf in order)]
