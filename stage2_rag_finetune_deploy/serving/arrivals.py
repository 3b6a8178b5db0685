"""What is sent and when: requests of ragged lengths that arrive by chance.

Users do not wait for one another, so the gaps between independent arrivals are exponential (a Poisson process). A
test that sends the next request when the last is answered (a closed loop) slows down together with the server and
hides its queue; here requests are sent at their time whatever happened to the earlier ones (an open loop).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import data


@dataclass(frozen=True)
class Request:
    """One request of a test.

    Attributes:
        at: seconds after the start at which it is sent.
        prompt: its text.
        new_tokens: how many tokens are asked for; the end of the text is ignored, so all come.
    """

    at: float
    prompt: str
    new_tokens: int


# exercise: serving.poisson_arrivals
def poisson_arrivals(count: int, rate: float, rng: random.Random) -> list[float]:
    """Times of `count` arrivals in seconds, increasing, `rate` of them a second on average; 0 is the first.

    Gaps are exponential with mean 1 / rate. An infinite rate is a burst: all at once.
    """
    times, now = [], 0.0
    for _ in range(count):
        times.append(now)
        now += 0.0 if rate == float("inf") else rng.expovariate(rate)
    return times
# end exercise


def word_pool() -> list[str]:
    """Words of customers, for prompts of any length."""
    return " ".join(utterance.text for utterance in data.load_understanding("customer-service-en", "train")).split()


def ragged_requests(
    count: int, rate: float, prompt_words: Sequence[int], new_tokens: Sequence[int], seed: int
) -> list[Request]:
    """Requests with lengths drawn evenly between the two ends of each pair.

    Prompts are stretches of `word_pool` that begin at chance: another seed gives others, so that what a server keeps of
    an earlier test's prompts helps it nowhere.
    """
    rng, words = random.Random(seed), word_pool()
    made = []
    for at in poisson_arrivals(count, rate, rng):
        length, start = rng.randint(*prompt_words), rng.randrange(len(words))
        text = " ".join(words[(start + step) % len(words)] for step in range(length))
        made.append(Request(at, text, rng.randint(*new_tokens)))
    return made
