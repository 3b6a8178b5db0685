"""Three judges behind one interface: rules, a local model held to the form, and any OpenAI-compatible endpoint."""

import math
from collections.abc import Sequence
from typing import Any

from llama_index.core.llms.llm import LLM

from stage1_foundations.first_rag.llm import SmolLM
from stage2_rag_finetune_deploy.rag.evaluation.judge import (
    CRITERIA,
    HIGHEST,
    LOWEST,
    Case,
    Verdict,
    parse_preference,
    parse_verdict,
    prefer_prompt,
    score_prompt,
)
from stage2_rag_finetune_deploy.rag.evaluation.overlap import tokens

NEGATIONS = {"not", "no", "never", "cannot", "without", "不", "没", "无", "别", "勿"}


class RuleJudge:
    """A judge without a model: the same verdict on every machine, so that CI can hold a figure to it.

    accuracy      how many of the answer's words, and above all of its numbers, stand in the passage or the reference;
                  an answer that negates where the reference does not (or the other way round) loses half
    completeness  the share of the reference's words that the answer has
    fluency       the share of its word pairs that do not repeat, less for running on past the reference's length and
                  for sentences that begin small or do not end

    It reads no meaning: a wrong answer in the passage's words fools it. That is what the comparison with people shows.
    """

    name = "rules"

    def score(self, case: Case, answer: str) -> Verdict:
        """See the class."""
        said, wanted = tokens(answer), tokens(case.reference)
        known = set(wanted) | set(tokens(case.passage)) | set(tokens(case.question))
        supported = share(said, known)
        numbers = [word for word in said if any(letter.isdigit() for letter in word)]
        accuracy = supported * share(numbers, known) if numbers else supported
        if bool(NEGATIONS & set(said)) != bool(NEGATIONS & set(wanted)):
            accuracy /= 2
        pairs = list(zip(said, said[1:], strict=False))
        fluency = len(set(pairs)) / len(pairs) if pairs else 0.5
        fluency *= min(1.0, 2 * len(wanted) / max(1, len(said)))
        if not answer.rstrip().endswith((".", "!", "?", "。", "！", "？")) or answer[:1].islower():
            fluency /= 2
        return Verdict(*(to_scale(value) for value in (accuracy, share(wanted, set(said)), fluency)))

    def prefer(self, case: Case, first: str, second: str) -> int:
        """The higher mean; the first on a tie."""
        return int(self.score(case, second).mean > self.score(case, first).mean)


class LocalJudge:
    """A local model that can only answer in the form: constrained decoding, by hand.

    The JSON is written for the model, and where a number is due it chooses among 1 to 10 by their probabilities, so no
    reply is unreadable. Readable is not right: see the agreement with people. Keys and values of the last text are
    kept, so that a text which begins like it costs only its new end.
    """

    def __init__(self, llm: SmolLM) -> None:
        self.llm = llm
        self.name = llm.metadata.model_name
        self.ids: list[int] = []
        self.cache: Any = None

    def score(self, case: Case, answer: str) -> Verdict:
        """One number a criterion; each one sees those before it."""
        text = self.llm.completion_to_prompt(score_prompt(case, answer)) + "{"
        scores = {}
        for criterion in CRITERIA:
            text += f'"{criterion}": '
            scores[criterion] = choose_number(self.next_log_probabilities, text)
            text += f"{scores[criterion]}, "
        return Verdict(**scores)

    def prefer(self, case: Case, first: str, second: str) -> int:
        """The letter with the higher probability."""
        text = self.llm.completion_to_prompt(prefer_prompt(case, first, second))
        after = self.next_log_probabilities(text)
        return int(after["B"] > after["A"])

    def next_log_probabilities(self, text: str) -> "NextToken":
        """Log-probabilities of the next token after a text."""
        import torch
        from transformers import DynamicCache

        ids = self.llm.count_tokens(text)[-self.llm.context_window :]
        kept = common_start(self.ids, ids[:-1]) if self.cache else 0
        if kept:
            self.cache.crop(kept)
        else:
            self.cache = DynamicCache()
        with torch.inference_mode():
            new = torch.tensor([ids[kept:]])
            logits = self.llm.model(input_ids=new, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits
        self.ids = ids
        return NextToken(self.llm, logits[0, -1].float().log_softmax(-1))


class NextToken:
    """Log-probabilities of the vocabulary, asked for by the text of a token."""

    def __init__(self, llm: SmolLM, values: Any) -> None:
        self.llm, self.values = llm, values  # (V,)

    def __getitem__(self, text: str) -> float:
        (token,) = self.llm.count_tokens(text)
        return float(self.values[token])


class EndpointJudge:
    """Any model behind OpenAI's protocol; its replies are parsed, and may be unreadable."""

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self.name = llm.metadata.model_name

    def score(self, case: Case, answer: str) -> Verdict | None:
        """Ask and parse."""
        return parse_verdict(self.ask(score_prompt(case, answer)))

    def prefer(self, case: Case, first: str, second: str) -> int | None:
        """Ask and parse."""
        return parse_preference(self.ask(prefer_prompt(case, first, second)))

    def ask(self, prompt: str) -> str:
        """The reply. Raises LabError when the endpoint fails."""
        return self.llm.complete(prompt).text


# exercise: rag.choose_number
def choose_number(log_probabilities: Any, text: str) -> int:
    """The most probable of 1 to 10 as the continuation of a text, for tokenizers that split 10 into two digits.

    p(10) = p("1") p("0" | "1"), and p(1) = p("1") (1 - p("0" | "1")): without the second, 1 would take 10's share.

    Args:
        log_probabilities: text -> log-probabilities of the next token, indexed by the token's text.
        text: ends where the number begins.
    """
    after = log_probabilities(text)
    found = {number: after[str(number)] for number in range(LOWEST, HIGHEST)}
    zero = log_probabilities(text + "1")["0"]
    found[HIGHEST] = found[1] + zero
    found[1] += math.log(max(1e-12, 1 - math.exp(min(0.0, zero))))
    return max(found, key=lambda number: (found[number], -number))


# end exercise


def common_start(first: Sequence[int], second: Sequence[int]) -> int:
    """How many items two sequences share at their start."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))


def share(words: Sequence[str], known: set[str]) -> float:
    """Share of the words that are known; 0 of none."""
    return sum(word in known for word in words) / len(words) if words else 0.0


def to_scale(value: float) -> int:
    """0 to 1 onto 1 to 10."""
    return round(LOWEST + (HIGHEST - LOWEST) * min(1.0, max(0.0, value)))
