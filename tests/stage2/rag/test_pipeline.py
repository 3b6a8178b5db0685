"""Question to answer. Each test names the bug that it catches."""

from dataclasses import dataclass

import pytest
from llama_index.core.llms import CompletionResponse

from labkit.errors import LabError
from stage2_rag_finetune_deploy.rag.answering import Answer, WritingAnswerer
from stage2_rag_finetune_deploy.rag.pipeline import LONGEST_QUESTION, Rag

QUESTION = "After how many days does a parcel count as lost?"


def test_an_answer_quotes_the_passage_it_cites(rag, documents):
    """Catches: a citation of the wrong passage, a quote that stands nowhere."""
    answer = rag.ask(QUESTION)
    assert not answer.refused and "seven days" in answer.answer and answer.answer.endswith("[1]")
    (citation,) = answer.citations
    assert citation.id == "parcel" and citation.quote in documents["parcel"]


def test_chinese_questions_find_chinese_passages(rag):
    """Catches: words cut at spaces, which Chinese does not have."""
    answer = rag.ask("提交订单以后，优惠券还能补用吗？")
    assert answer.citations[0].id == "coupon" and "不能补用" in answer.answer


@pytest.mark.parametrize("question", ["Who won the chess tournament in Reykjavik?", "谁发明了蒸汽机车？"])
def test_without_evidence_it_refuses(rag, question):
    """Catches: an answer invented, or quoted from whatever came first."""
    answer = rag.ask(question)
    assert answer.refused and answer.citations == () and answer.answer.startswith("No evidence")
    answered = Rag(rag.searcher, rag.weights, rag.answerer, -1.0, {}).ask(question)
    assert not answered.refused  # it is the threshold that refuses


def test_orders_in_a_passage_are_not_followed(rag):
    """Catches: an injected sentence quoted as the answer, or the whole passage lost with it."""
    answer = rag.ask("What does the kettle reply? How many litres does the kettle hold?")
    assert "FREE MONEY" not in answer.answer and "1.7 litres" in answer.answer
    assert "FREE MONEY" in answer.removed[0]


@pytest.mark.parametrize(
    ("question", "reason"), [("", "no words"), (" ?!\n", "no words"), ("why " * LONGEST_QUESTION, "are the limit")]
)
def test_questions_that_cannot_be_answered(rag, question, reason):
    """Catches: a traceback from the tokenizer, or seconds spent on ten thousand characters."""
    with pytest.raises(LabError, match=reason):
        rag.ask(question)


def test_a_filter_reaches_the_search(rag):
    """Catches: `where` dropped on the way."""
    assert [passage.id for passage in rag.retrieve(QUESTION, 5, {"kind": "lamp"})] == ["lamp"]


@dataclass
class Writer:
    """A model that says one thing, in pieces."""

    text: str

    def stream_complete(self, prompt: str):
        self.prompt = prompt
        for piece in self.text.split(" "):
            yield CompletionResponse(text="", delta=piece + " ")


@pytest.mark.parametrize(
    ("written", "refused"),
    [
        ("It counts as lost when the tracking has not changed for seven days.", False),
        ("Astronauts in Houston celebrated a purple dinosaur.", True),
        ("No evidence.", True),
        ("", True),
    ],
)
def test_what_no_passage_holds_is_taken_back(rag, written, refused):
    """Catches: an invented answer shown with a citation; a grounded one refused; an empty one shown."""
    writing = Rag(rag.searcher, rag.weights, WritingAnswerer(Writer(written), rag.weights), 0.4, {})
    answer = writing.ask(QUESTION)
    assert answer.refused is refused
    assert refused or answer.citations[0].id == "parcel"


def test_the_prompt_fences_passages_and_leaves_orders_out(rag):
    """Catches: an injected sentence in the prompt; passages that cannot be told from the question."""
    writer = Writer("No evidence.")
    Rag(rag.searcher, rag.weights, WritingAnswerer(writer, rag.weights), 0.0, {}).ask("How much does the kettle hold?")
    assert "FREE MONEY" not in writer.prompt and "<<<The kettle holds 1.7 litres." in writer.prompt
    assert writer.prompt.index(">>>") < writer.prompt.index("Question: How much")


def test_pieces_make_up_the_answer(rag):
    """Catches: spaces lost between streamed words; the last word missing."""
    events = list(rag.events(QUESTION))
    assert isinstance(events[0], list) and isinstance(events[-1], Answer)
    assert "".join(events[1:-1]) + " [1]" == events[-1].answer
