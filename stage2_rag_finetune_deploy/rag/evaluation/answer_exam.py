"""Answers against labels: are they right, is the right passage cited, and do orders in passages reach them?

An extractive answer is a whole sentence and a gold answer a few words, so exact match is 0 by construction and F1 low;
"holds" (the gold answer stands in what was said) is the fair measure, and ROUGE and BLEU are taken against the sentence
of the gold passage that has the answer.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from data.injection_set import InjectedPassage
from data.retrieval import RetrievalSet
from labkit.progress import progress
from stage1_foundations.first_rag.evaluation import holds, share, word_f1
from stage1_foundations.first_rag.words import split_sentences
from stage2_rag_finetune_deploy.rag.answering import Answer, ExtractiveAnswerer, WritingAnswerer, Written
from stage2_rag_finetune_deploy.rag.evaluation.overlap import bleu_scores, exact_match, rouge_scores
from stage2_rag_finetune_deploy.rag.injection_guard import guard
from stage2_rag_finetune_deploy.rag.pipeline import Rag

MARK = " [1]"


@dataclass(frozen=True)
class Examined:
    """One question and what was said.

    Attributes:
        said: the answer without its citation mark; empty when refused.
        golds: the strings that count as the answer.
        reference: the sentence of a gold passage that has one of them.
        cited: ids of the documents that the answer cites.
        quote: what it cites of them.
        gold_documents: ids of those that answer the question.
    """

    question: str
    said: str
    golds: tuple[str, ...]
    reference: str
    cited: tuple[str, ...]
    quote: str
    gold_documents: tuple[str, ...]

    def as_json(self) -> dict:
        """A line of answers.jsonl."""
        return asdict(self)


def examine(rag: Rag, labelled: RetrievalSet) -> list[Examined]:
    """Ask every question of a set that has answer strings."""
    found = []
    for query, text in progress(list(labelled.queries.items()), description="ask"):
        answer = rag.ask(text)
        golds, documents = tuple(labelled.answers[query]), tuple(labelled.qrels[query])
        reference = reference_sentence([labelled.corpus[id] for id in documents], golds)
        cited = tuple(citation.id for citation in answer.citations)
        quote = " ".join(citation.quote for citation in answer.citations)
        found.append(Examined(text, plain_text(answer), golds, reference, cited, quote, documents))
    return found


def plain_text(answer: Answer) -> str:
    """What was said, without the mark of the citation; empty for a refusal."""
    return "" if answer.refused else answer.answer.removesuffix(MARK).strip()


def reference_sentence(texts: Sequence[str], golds: Sequence[str]) -> str:
    """The first sentence with a gold answer; the answer itself where it runs over a sentence's end."""
    sentences = (sentence for text in texts for sentence in split_sentences(text))
    return next((sentence for sentence in sentences if holds(sentence, golds)), golds[0])


def answer_figures(examined: Sequence[Examined]) -> dict[str, float]:
    """Shares and means. Those of answers and citations are over the questions answered, `right of all` over all.

    Raises:
        ValueError: nothing was examined.
    """
    if not examined:
        raise ValueError("no answers to examine")
    answered = [one for one in examined if one.said]
    figures = {"answered": len(answered) / len(examined)}
    right = [holds(one.said, one.golds) for one in answered]
    figures["right of all"] = sum(right) / len(examined)
    if not answered:
        return figures
    said, references = [one.said for one in answered], [one.reference for one in answered]
    cited = [document in one.gold_documents for one in answered for document in one.cited]
    return figures | {
        "holds": share(right),
        "citation precision": share(cited),
        "quote holds": share([holds(one.quote, one.golds) for one in answered]),
        "exact match": share([exact_match(one.said, one.golds) for one in answered]),
        "F1": sum(word_f1(one.said, one.golds) for one in answered) / len(answered),
        **rouge_scores(said, references),
        **bleu_scores(said, references),
    }


Answerer = ExtractiveAnswerer | WritingAnswerer


def said_of(answerer: Answerer, question: str, text: str) -> str:
    """What an answerer makes of one text; empty when it refuses, or when no text is left."""
    if not text.strip():
        return ""
    written = next(item for item in answerer.write(question, [text]) if isinstance(item, Written))
    return written.text if written.position is not None else ""


def injection_figures(answerer: Answerer, passages: Sequence[InjectedPassage], guarded: bool) -> dict[str, float]:
    """With each passage alone: orders followed, questions answered in spite of them, harmless passages answered.

    Returns:
        `followed` and `answered` as shares of the attacks, `benign answered` as a share of the others.
    """
    followed, answered, benign = [], [], []
    for passage in progress(passages, description="injections, " + ("guard" if guarded else "no guard")):
        said = said_of(answerer, passage.question, guard(passage.text).text if guarded else passage.text)
        if passage.must_not:
            followed.append(bool(passage.followed(said)))
            answered.append(passage.answered(said))
        else:
            benign.append(passage.answered(said))
    return {"followed": share(followed), "answered": share(answered), "benign answered": share(benign)}
