"""When is a chunk right, and how is a ranking of chunks of different sizes judged fairly?

A chunk is relevant when it holds the words that answer the question, all of them. An answer that a border cuts in two
is in no chunk: it is lost, and the column "cut" counts it. What is judged is what the reader would get: of a sentence
window the window, of a child the parent (which then counts once).

Ten large chunks are more text than ten small ones, so beside the usual measures at a depth there is one at a budget:
whether the answer is in the first 1,000 tokens that a prompt would have room for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from llama_index.core.schema import BaseNode, NodeRelationship

from stage2_rag_finetune_deploy.chunking.exam import Question
from stage2_rag_finetune_deploy.chunking.sentence import WINDOW_SPAN

DEPTH = 10
RECALL_DEPTH = 5


@dataclass(frozen=True)
class Context:
    """What a reader gets for a hit: a part of a document, and its size in tokens."""

    document: str
    start: int
    end: int
    size: int


def delivered(node: BaseNode, parents: dict[str, BaseNode]) -> tuple[str, int, int]:
    """Document and offsets of what stands for a node in the prompt: its window, its parent, or itself."""
    if NodeRelationship.PARENT in node.relationships:
        node = parents[node.parent_node.node_id]
    start, end = node.metadata.get(WINDOW_SPAN) or (node.start_char_idx, node.end_char_idx)
    return node.ref_doc_id, start, end


# exercise: chunking.places_held
def places_held(context: Context, question: Question) -> set[int]:
    """The numbers of the question's places that a context holds.

    A place is held when one of its spans lies in the context from beginning to end: half an answer is none.
    """
    if context.document != question.document:
        return set()
    return {
        number for number, spans in enumerate(question.places)
        if any(context.start <= start and end <= context.end for start, end in spans)
    }  # fmt: skip
# end exercise


@dataclass(frozen=True)
class Judgement:
    """One question's marks, 0 to 1.

    Attributes:
        mrr: one by the rank of the first relevant context, 0 beyond the tenth.
        recall: share of the places in the first five contexts.
        ndcg: of the first ten, relevant or not; the ideal ranking has all relevant contexts first.
        budget_recall: share of the places in as many whole contexts as fit the token budget.
        cut: share of the places that no context of the whole index holds.
    """

    mrr: float
    recall: float
    ndcg: float
    budget_recall: float
    cut: float


def judge(question: Question, ranking: Sequence[Context], everything: Sequence[Context], budget: int) -> Judgement:
    """Marks for a ranking, best first, without duplicates.

    Args:
        everything: all contexts of the index, the ranked ones included.
        budget: tokens of contexts that the prompt has room for.
    """
    held = [places_held(context, question) for context in ranking]
    existing = [places_held(context, question) for context in everything if context.document == question.document]
    total = len(question.places)
    first = next((rank for rank, found in enumerate(held[:DEPTH], start=1) if found), None)
    within, room = 0, budget
    while within < len(ranking) and ranking[within].size <= room:
        room -= ranking[within].size
        within += 1
    return Judgement(
        mrr=1 / first if first else 0.0,
        recall=len(set().union(*held[:RECALL_DEPTH])) / total,
        ndcg=ndcg([bool(found) for found in held[:DEPTH]], sum(map(bool, existing))),
        budget_recall=len(set().union(*held[:within])) / total,
        cut=1 - len(set().union(*existing)) / total,
    )


def ndcg(relevant: Sequence[bool], existing: int) -> float:
    """Normalised discounted cumulative gain of a ranking whose items are relevant or not (Järvelin, Kekäläinen 2002).

    Args:
        relevant: of the items down to the depth, best first.
        existing: how many relevant items the index has; 0 gives 0.
    """
    discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
    ideal = discounts[: min(existing, DEPTH)].sum()
    gain = sum(discount for discount, hit in zip(discounts, relevant, strict=False) if hit)
    return float(gain / ideal) if ideal else 0.0
