"""The reward of grpo_trl.yaml: TRL finds it by its dotted name, and calls it with what the model wrote."""

from typing import Any

from data.verifiable import Question, verify


def exact_answer(completions: list[Any], answer: list[str], **columns: Any) -> list[float]:
    """1.0 for a completion whose answer is right, else 0.0.

    Args:
        completions: texts, or conversations whose last message is the model's.
        answer: the right one for each completion, a column of the data set.
        columns: the other columns and what else TRL knows; not used.
    """
    texts = [reply if isinstance(reply, str) else reply[-1]["content"] for reply in completions]
    questions = [Question("", "", right, entry={"answer": right}) for right in answer]
    return [verify(question, text) for question, text in zip(questions, texts, strict=True)]
