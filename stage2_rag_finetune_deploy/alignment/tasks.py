"""What is learnt: questions with a right answer, and a score for any reply.

    chain_sum, ...         reasoning-gym: seeded questions without end, checked by a program (data/verifiable.py)
    customer-service-en    the shop's utterances; a reply counts when intent and all slots are right

A verifier's score is all that GRPO gets to see; SFT gets the right answer; DPO the right and a wrong one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import data
from data.customer_service.prompt import prompt_messages
from data.understanding import SETS
from data.verifiable import TASKS, last_list, last_number, last_word
from labkit.cli import nearest
from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune.chat_format import Message
from stage2_rag_finetune_deploy.finetune.samples import evenly
from stage2_rag_finetune_deploy.finetune.understanding import score

INSTRUCTION = {
    last_number: "Answer with the number only.",
    last_word: "Answer with the word only.",
    last_list: "Answer with the list only.",
}
TEST_SEED, TEST_SIZE = 0, 128  # training seeds are from 1 on; of chain_sum's short questions two thirds are left


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        messages: the prompt.
        gold: a right reply.
        source: the data set's own object; the task's `score` needs it.
    """

    messages: list[Message]
    gold: str
    source: Any = field(repr=False)


class Task(Protocol):
    """What the scripts need of a task."""

    name: str
    new_tokens: int  # longest reply, the end of turn included
    draws: int  # sampled replies to a test question, when a model is measured; two and more

    def train(self, size: int, seed: int) -> list[Item]:
        """`size` questions to learn from."""

    def test(self, size: int) -> list[Item]:
        """`size` questions that are in no training set, the same for all seeds."""

    def score(self, item: Item, reply: str) -> float:
        """1 for a right reply, else 0."""


class VerifiableTask:
    """A task of reasoning-gym."""

    def __init__(self, name: str) -> None:
        self.name, self.new_tokens, self.draws = name, 12, 4
        self.instruction = INSTRUCTION[TASKS[name][1]]

    def train(self, size: int, seed: int) -> list[Item]:
        """Questions drawn with the seed, short ones again and again; none has the wording of a test question."""
        test = data.load_verifiable(self.name, TEST_SIZE, TEST_SEED)
        drawn = data.load_verifiable(self.name, size, seed, exclude=test, repeats=True)
        return [self.item(question) for question in drawn]

    def test(self, size: int) -> list[Item]:
        """The first `size` of TEST_SIZE questions."""
        if size > TEST_SIZE:
            raise LabError(f"{size} test questions are not possible", f"at most {TEST_SIZE}")
        return [self.item(question) for question in data.load_verifiable(self.name, TEST_SIZE, TEST_SEED)[:size]]

    def item(self, question: Any) -> Item:
        """A question as a prompt."""
        system = {"role": "system", "content": self.instruction}
        return Item([system, {"role": "user", "content": question.prompt}], question.answer, question)

    def score(self, item: Item, reply: str) -> float:
        """The verifier's word."""
        return data.verify(item.source, reply)


class UnderstandingTask:
    """The shop's utterances."""

    def __init__(self, name: str) -> None:
        self.name, self.new_tokens, self.draws = name, 96, 2

    def train(self, size: int, seed: int) -> list[Item]:
        """Utterances of the training part, taken evenly; the seed changes nothing."""
        return self.items("train", size)

    def test(self, size: int) -> list[Item]:
        """Utterances of the test part, taken evenly."""
        return self.items("test", size)

    def items(self, split: str, size: int) -> list[Item]:
        """Utterances as prompts with their labels."""
        chosen = evenly(data.load_understanding(self.name, split), size)
        return [Item(prompt_messages(each.text, each.language), each.label, each) for each in chosen]

    def score(self, item: Item, reply: str) -> float:
        """Intent and all slots."""
        return score([item.source], [reply]).mean("exact")


def load_task(name: str) -> Task:
    """A task by its name.

    Raises:
        LabError: there is none.
    """
    makers: dict[str, Callable[[str], Task]] = {
        **dict.fromkeys(TASKS, VerifiableTask), **dict.fromkeys(SETS, UnderstandingTask)
    }  # fmt: skip
    if name not in makers:
        raise LabError(f"no task is called {name!r}", f"--task {nearest(name, list(makers)) or ', '.join(makers)}")
    return makers[name](name)
