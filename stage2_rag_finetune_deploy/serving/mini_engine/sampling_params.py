"""How one request wants its tokens drawn: the names and the defaults are vLLM's."""

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.errors import LabError

LONGEST_STOP = 200  # characters: text that may still become a stop string is held back
MOST_STOPS = 16


@dataclass(frozen=True)
class SamplingParams:
    """Options of a request.

    Attributes:
        max_tokens: at most so many new tokens; None is as many as the context has room for.
        temperature: divides the logits; 0 takes the most probable token.
        top_k: only the k most probable tokens; 0 or -1 is all of them.
        top_p: only the smallest set of tokens whose probabilities sum to p.
        seed: the same seed draws the same tokens, whatever else is in the batch; None is another one each time.
        stop: the text ends before any of these.
        stop_token_ids: besides the model's own end.
        ignore_eos: go on past the model's own end (for measurements).
    """

    n: int = 1
    max_tokens: int | None = 16
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be sampled.

        Raises:
            LabError: the message names the parameter, its value and what is possible.
        """
        refuse(self.n != 1, "n", self.n, "1: ask again for another answer")
        refuse(self.max_tokens is not None and self.max_tokens < 1, "max_tokens", self.max_tokens, "1 or more")
        refuse(not 0 <= self.temperature <= 100, "temperature", self.temperature, "0 to 100; 0 is greedy")
        refuse(self.top_k < -1, "top_k", self.top_k, "1 or more; 0 or -1 is all tokens")
        refuse(not 0 < self.top_p <= 1, "top_p", self.top_p, "above 0, up to 1")
        refuse(self.seed is not None and not -(2**63) <= self.seed < 2**63, "seed", self.seed, "64 bits")
        refuse("" in self.stops, "stop", '""', "texts of one character or more")
        refuse(len(self.stops) > MOST_STOPS, "stop", f"{len(self.stops)} texts", f"at most {MOST_STOPS}")
        longest = max(map(len, self.stops), default=0)
        refuse(longest > LONGEST_STOP, "stop", f"{longest} characters", f"at most {LONGEST_STOP}")

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is taken."""
        return self.temperature == 0


def refuse(wrong: bool, name: str, value: object, possible: str) -> None:
    """Raise when a parameter has a value that it cannot have."""
    if wrong:
        raise LabError(f"{name} cannot be {value}", f"{name}: {possible}")
