"""Each test names the bug that it catches."""

import asyncio

import pytest

from labkit.errors import LabError
from stage1_foundations.first_rag.evidence import NO_EVIDENCE
from stage1_foundations.first_rag.rag import LLM_MODES, Rag, RagConfig, statements
from stage1_foundations.first_rag.synthesizer import ExtractiveSynthesizer
from stage1_foundations.first_rag.words import WordWeights

QUESTION = "What does the kettle hold?"
TRUE = "The kettle holds two litres."


@pytest.fixture
def ask(index, embedding, scripted):
    """ask("what the model writes", ..., mode="refine", k=3): the answer and the prompts."""

    def run(*lines: str, mode: str = "compact", k: int = 3, question: str = QUESTION, **llm_options: int):
        llm = scripted(*lines, **llm_options)
        rag = Rag(index, embedding, RagConfig(mode=mode, top_k=k, threshold=0.2), llm=llm)
        return rag.ask(question), llm.prompts

    return run


@pytest.mark.parametrize(("mode", "calls"), [("compact", 1), ("refine", 3), ("tree_summarize", 1), ("accumulate", 3)])
def test_every_mode_asks_as_often_as_it_should(ask, mode, calls):
    """Catches: a mode's name that reaches another synthesizer; a mode that does not see all nodes."""
    answer, prompts = ask(TRUE, mode=mode)
    assert len(prompts) == calls
    assert "The kettle holds two litres." in "".join(prompts) and QUESTION in prompts[0]
    assert answer.citations[0].source == "kettle"


def test_compact_cuts_what_does_not_fit_the_window(ask):
    """Catches: prompts measured with another tokenizer or not at all, and cut off by the model in silence."""
    _, prompts = ask(TRUE, mode="compact", k=6, context_window=650)
    assert len(prompts) > 1
    assert all(name in "".join(prompts) for name in ("kettle", "Zephyr", "noon", "forty", "ounces", "battery"))


def test_tree_summarize_joins_the_answers(ask):
    """Catches: a tree of one level, which forgets all but the first window."""
    _, prompts = ask("part one is red", "part two is blue", TRUE, mode="tree_summarize", k=6, context_window=130)
    assert len(prompts) >= 3 and "part one is red" in prompts[-1]


def test_refine_hands_the_answer_on(ask):
    """Catches: a refine prompt without the answer so far."""
    answer, prompts = ask("It holds one litre.", "It holds three litres.", TRUE, mode="refine")
    assert "one litre" not in prompts[0] and "one litre" in prompts[1] and "three litres" in prompts[2]
    assert answer.text == f"{TRUE} [1]"


def test_an_answer_cites_the_passage_that_holds_it(ask):
    """Catches: a citation that is always the first passage."""
    answer, _ = ask("The highest speed is named Zephyr.", k=6, question="Does the kettle have three litres?")
    citation = answer.citations[0]
    assert citation.source == "fan" and citation.number > 1 and answer.text.endswith(f"[{citation.number}]")
    assert citation.quote == "The highest one is named Zephyr." and citation.quote in citation.text


@pytest.mark.parametrize("text", ["Leonardo painted it in Milan.", "no evidence", "There is No evidence.", "", "  "])
def test_inventions_and_refusals_are_not_shown(ask, text):
    """Catches: an invented answer with a citation under it; "no evidence" that is cited."""
    answer, _ = ask(text)
    assert answer.refused and answer.text == NO_EVIDENCE and answer.citations == []


def test_accumulate_keeps_the_statements_that_hold(ask):
    """Catches: one invented statement that takes the others with it, or gets through between them."""
    answer, prompts = ask(TRUE, "Leonardo painted it.", "The fan has three speeds.", mode="accumulate", k=6)
    assert len(prompts) == 6
    lines = answer.text.splitlines()
    assert lines[0] == f"{TRUE} [1]" and all("Leonardo" not in line for line in lines)
    assert {citation.source for citation in answer.citations} == {"kettle", "fan"}


def test_statements():
    """Catches: LlamaIndex's labels and rules left in the answer."""
    assert statements("Response 1: One.\n---------------------\nResponse 2: Two.") == ["One.", "Two."]
    assert statements("Plain answer.") == ["Plain answer."]


def test_gate_keeps_the_model_out(ask):
    """Catches: a model that is asked although nothing was found: it would invent."""
    answer, prompts = ask(TRUE, question="Who painted the Mona Lisa?")
    assert answer.refused and prompts == []


@pytest.mark.parametrize("mode", LLM_MODES)
def test_a_prompt_larger_than_the_window_is_one_clear_line(ask, mode):
    """Catches: LlamaIndex's ValueError about a negative context size."""
    with pytest.raises(LabError, match="fills the model's window"):
        ask(TRUE, mode=mode, question="kettle holds litres " * 60, context_window=128)


def test_extractive_synthesizer_by_itself():
    """Catches: a number that counts from 0, an async twin that answers otherwise, an empty corpus that crashes."""
    texts = ["The fan is loud.", "The kettle holds two litres."]
    synthesizer = ExtractiveSynthesizer(WordWeights(texts))
    assert synthesizer.get_response("What does the kettle hold?", texts) == "The kettle holds two litres. [2]"
    assert asyncio.run(synthesizer.aget_response("kettle", texts)) == "The kettle holds two litres. [2]"
    assert synthesizer.get_response("kettle", []) == NO_EVIDENCE
    assert str(synthesizer.synthesize("kettle", nodes=[])) == NO_EVIDENCE


@pytest.mark.parametrize("question", ["", "  ", "?!", "kettle " * 301, "x" * 2001])
def test_questions_without_words_and_without_end(index, embedding, question):
    """Catches: an answer to nothing; a question that no model reads to its end."""
    with pytest.raises(LabError, match="question"):
        Rag(index, embedding, RagConfig()).ask(question)


def test_top_k_below_one(index, embedding):
    """Catches: k = 0 as "no evidence" for everything."""
    with pytest.raises(LabError, match="--top-k 0"):
        Rag(index, embedding, RagConfig(top_k=0))
