"""The price of the usual mistakes, each in points of nDCG@10 on the same questions.

    pooling     the tokens' vectors made one in another way than the model was trained with
    prompts     none, exchanged, or another model's
    lengths     a dot product of vectors that were not set to length 1
    mean        the shared direction left in, or taken out (anisotropy.py)
"""

from dataclasses import dataclass

import numpy as np
import pytrec_eval

import data
from labkit.errors import LabError
from stage1_foundations.embeddings.anisotropy import effective_dimensions, mean_cosine, random_cosines, remove_mean
from stage1_foundations.embeddings.encoders import Encoder, load_encoder, unit_length
from stage1_foundations.embeddings.pooling import POOLINGS, pooled
from stage1_foundations.embeddings.transformer_encoder import TransformerEncoder

E5_PROMPTS = {
    "right": {"query": "query: ", "passage": "passage: "},
    "none": {"query": "", "passage": ""},
    "exchanged": {"query": "passage: ", "passage": "query: "},
    "of another model": {"query": "Represent this sentence for searching relevant passages: ", "passage": ""},
}


@dataclass(frozen=True)
class Spread:
    """One encoder's vectors: how they lie, and what taking their mean out does.

    Attributes:
        random: cosines of random pairs of passages.
        gold: cosines of the questions with their passages.
        raw: nDCG@10 × 100.
        centred: the same with the mean of the queries and that of the passages taken out.
    """

    name: str
    mean_cosine: float
    dimensions: float
    random: np.ndarray
    gold: np.ndarray
    raw: float
    centred: float


def query_ndcg(chosen: data.RetrievalSet, queries: np.ndarray, passages: np.ndarray) -> np.ndarray:
    """nDCG@10 of every query under exact search by dot product, (queries,); rows are in the set's order."""
    ids = list(chosen.corpus)
    scores = queries @ passages.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    ranked = {query: {ids[column]: float(scores[row, column]) for column in best[row]}
              for row, query in enumerate(chosen.queries)}  # fmt: skip
    return ranking_ndcg(chosen, ranked)


def ranking_ndcg(chosen: data.RetrievalSet, ranked: dict[str, dict[str, float]]) -> np.ndarray:
    """nDCG@10 of every query of a ranking, in the set's order; 0 for a query that found nothing."""
    measured = pytrec_eval.RelevanceEvaluator(chosen.qrels, {"ndcg_cut.10"}).evaluate(ranked)
    return np.array([measured[query]["ndcg_cut_10"] if query in measured else 0.0 for query in chosen.queries])


def ndcg(chosen: data.RetrievalSet, queries: np.ndarray, passages: np.ndarray) -> float:
    """Mean nDCG@10 × 100."""
    return 100 * float(query_ndcg(chosen, queries, passages).mean())


def texts_of(chosen: data.RetrievalSet) -> tuple[list[str], list[str]]:
    """Queries and passages."""
    return list(chosen.queries.values()), list(chosen.corpus.values())


def spread(encoder: Encoder, chosen: data.RetrievalSet) -> Spread:
    """How an encoder's passages lie on the sphere."""
    questions, texts = texts_of(chosen)
    queries, passages = encoder.encode(questions, "query"), encoder.encode(texts, "passage")
    row_of = {passage: row for row, passage in enumerate(chosen.corpus)}
    gold = [row_of[next(iter(chosen.qrels[query]))] for query in chosen.queries]
    centred = remove_mean(queries, queries.mean(axis=0)), remove_mean(passages, passages.mean(axis=0))
    return Spread(
        encoder.name, mean_cosine(passages), effective_dimensions(passages), random_cosines(passages),
        (queries * passages[gold]).sum(axis=1), ndcg(chosen, queries, passages), ndcg(chosen, *centred),
    )  # fmt: skip


def pooling_scores(name: str, chosen: data.RetrievalSet) -> dict[str, np.ndarray]:
    """Per-query nDCG@10 of a transformer under every pooling; the first is the one that it was trained with.

    Raises:
        LabError: the encoder is no transformer.
    """
    encoder = load_encoder(name)
    if not isinstance(encoder, TransformerEncoder):
        raise LabError(f"{name} has no tokens to pool", "--model minilm or --model e5")
    questions, texts = texts_of(chosen)
    queries, passages = pooled(encoder, questions, "query"), pooled(encoder, texts, "passage")
    return {kind: query_ndcg(chosen, unit_length(queries[kind]), unit_length(passages[kind])) for kind in POOLINGS}


def prompt_scores(chosen: data.RetrievalSet) -> dict[str, np.ndarray]:
    """Per-query nDCG@10 of e5 with its prompts, without, with the two exchanged, and with another model's."""
    scores, encoder = {}, load_encoder("e5")
    questions, texts = texts_of(chosen)
    for name, prompts in E5_PROMPTS.items():
        encoder.prompts = {**prompts, "symmetric": ""}
        scores[name] = query_ndcg(chosen, encoder.encode(questions, "query"), encoder.encode(texts, "passage"))
    return scores


def length_scores(chosen: data.RetrievalSet) -> dict[str, np.ndarray]:
    """Per-query nDCG@10 of averaged GloVe by cosine, by dot product of the means, and of the sums of the words."""
    encoder = load_encoder("glove")
    questions, texts = texts_of(chosen)
    queries, passages = encoder.embed(questions), encoder.embed(texts)
    counts = np.array([[len(encoder.rows(text))] for text in texts], np.float32)
    return {
        "cosine": query_ndcg(chosen, unit_length(queries), unit_length(passages)),
        "dot product of means": query_ndcg(chosen, queries, passages),
        "dot product of sums": query_ndcg(chosen, queries, passages * counts),
    }
