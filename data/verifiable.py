"""Questions whose answers a program checks: seeded tasks of reasoning-gym, for learning from rewards.

    questions = data.load_verifiable("chain_sum", size=200, seed=1)
    questions[0].prompt                          -> "State the final answer to the following ...: 4 - 1 ="
    data.verify(questions[0], "It must be 3.")   -> 1.0

Nobody wrote these questions, so there are as many as one likes. Two traps, both closed here: reasoning-gym draws item
i of seed s from s + i, so its seeds 1 and 2 share all items but one; and small tasks repeat questions, so a set has no
prompt twice, and `exclude` keeps a test set's prompts out of training.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

from labkit.cli import nearest
from labkit.errors import LabError

NUMBER = re.compile(r"(?<![\w.)])-?\d[\d,]*(?:\.\d+)?|\d[\d,]*(?:\.\d+)?")
TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
RIGHT = 0.999  # spell_backward gives a right word 1 - 2e-16
PATIENCE = 50  # a set takes at most this many draws for each question that it wants


@dataclass(frozen=True)
class Question:
    """One task with its answer.

    Attributes:
        id: `<task>/<seed>/<number>`.
        prompt: the question as reasoning-gym words it.
        answer: one right answer; countdown-like tasks may have others.
        task: reasoning-gym's name of the task.
        entry: what its verifier needs besides the answer.
    """

    id: str
    prompt: str
    answer: str
    task: str = "chain_sum"
    entry: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def last_number(text: str) -> str:
    """The last number of a reply, without thousands separators and a `.0`; empty when there is none.

    Only the last one counts: a reply that lists ten candidates earns nothing for it.
    """
    found = NUMBER.findall(unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-"))
    return re.sub(r"\.0+$", "", found[-1].replace(",", "")) if found else ""


def last_word(text: str) -> str:
    """The last word of a reply: letters only."""
    found = re.findall(r"[^\W\d_]+", text)
    return found[-1] if found else ""


def last_list(text: str) -> str:
    """A comma-separated list: the last line that is not empty, from its last colon on."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rpartition(":")[2].strip().rstrip(".") if lines else ""


# task -> its settings, small enough for a model of 135M parameters, and what is read out of a reply
TASKS: dict[str, tuple[dict[str, Any], Callable[[str], str]]] = {
    "chain_sum": ({"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}, last_number),
    "basic_arithmetic": (
        {"min_terms": 2, "max_terms": 3, "max_digits": 2, "operators": ("+", "-"), "allow_parentheses": False},
        last_number,
    ),
    "letter_counting": ({"min_words": 2, "max_words": 4}, last_number),
    "leg_counting": ({"min_animals": 2, "max_animals": 2, "max_instances": 5}, last_number),
    "simple_equations": (
        {"max_terms": 2, "max_value": 10, "operators": ("+", "-"), "operators_weights": (0.5, 0.5)},
        last_number,
    ),
    "gsm_symbolic": ({}, last_number),
    "spell_backward": ({"min_word_len": 3, "max_word_len": 5}, last_word),
    "word_sorting": ({"min_words": 3, "max_words": 3, "max_word_length": 6}, last_list),
}


def read_answer(task: str, reply: str) -> str:
    """What a reply answers: inside its last <answer> tag where it has one, and then by the task's own rule."""
    tagged = TAGGED.findall(reply)
    return TASKS[task][1](tagged[-1] if tagged else reply)


def create(task: str, size: int, seed: int) -> Any:
    """reasoning-gym's data set with this course's settings.

    Raises:
        LabError: unknown task, or reasoning-gym is not installed.
    """
    if task not in TASKS:
        raise LabError(f"no verifiable task is called {task!r}", nearest(task, list(TASKS)) or ", ".join(TASKS))
    try:
        import reasoning_gym  # a second, and not on Windows
    except ImportError as error:
        raise LabError(f"reasoning-gym cannot be imported: {error}", "make setup STAGE=2") from error
    return reasoning_gym.create_dataset(task, size=size, seed=seed, **TASKS[task][0])


@cache
def scorer(task: str) -> Any:
    """The task's verifier; it keeps no state."""
    return create(task, size=1, seed=0)


def load_verifiable(
    task: str = "chain_sum", size: int = 200, seed: int = 0, exclude: Iterable[Question] = (), repeats: bool = False
) -> list[Question]:
    """`size` questions of a task, the same on every machine; none has the prompt of one in `exclude`.

    Args:
        repeats: let a question come again, as often as the task draws it. Without repeats all are different, and a
            large set is harder than a small one: the few short questions are soon used up.

    Raises:
        LabError: unknown task, a size below 1, or a task that does not have that many questions.
    """
    if size < 1:
        raise LabError(f"{size} questions are not enough", "a size of at least 1")
    source = create(task, size * PATIENCE, Random(f"{task}/{seed}").getrandbits(48))
    seen = {question.prompt for question in exclude}
    questions: list[Question] = []
    for entry in source:
        prompt = entry["question"].strip()
        if prompt not in seen:
            if not repeats:
                seen.add(prompt)
            id = f"{task}/{seed}/{len(questions) + 1}"
            questions.append(Question(id, prompt, str(entry["answer"]), task, entry))
            if len(questions) == size:
                return questions
    raise LabError(f"{task} gave only {len(questions)} different questions of {size}", f"a size of {len(questions)}")


def verify(question: Question, reply: str, partial: bool = False) -> float:
    """1.0 when the answer read out of the reply is right, else 0.0.

    With `partial`, reasoning-gym's own score in [0, 1]. It is generous by accident: chain_sum pays 0.5 for 13 where 3
    is right, because 3 is in it. As a reward it teaches what it pays for.
    """
    answer = read_answer(question.task, reply)
    score = scorer(question.task).score_answer(answer, entry=dict(question.entry)) if answer else 0.0
    return float(score) if partial else float(score >= RIGHT)
