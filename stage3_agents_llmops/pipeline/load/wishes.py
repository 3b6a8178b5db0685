"""Who comes, and what they want: the agent lab's scripted customers, and people with a question for the help centre.

A scripted customer needs a customer of the shop in the right situation: somebody with an order that can still be
cancelled. Conversations change the shop, so it is looked at again when nobody fits any more.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from data.help_articles import HelpQuestion, load_help_questions
from data.scripted_customers.judge import Case, open_case
from data.scripted_customers.script import Script
from data.scripted_customers.shop_values import Market
from data.shop.shop_database import dump
from labkit.errors import LabError

ASKS = 0.4  # share of the conversations that are questions to the help centre
MOST_QUESTIONS = 3
TRIES = 6  # scripts that are tried before somebody just asks something


@dataclass(frozen=True)
class Wish:
    """One conversation that is about to begin: a case that is judged, or questions with the article that answers."""

    customer_id: str
    language: str
    name: str
    case: Case | None = None
    questions: tuple[HelpQuestion, ...] = ()


class Wishes:
    """Gives out wishes; nobody has two conversations at once.

    Args:
        shop: the shop's database, which conversations change.
        scripts: those whose customer leaves in between are left out: nothing is restarted here.
    """

    def __init__(self, shop: Path, scripts: Iterable[Script], rng: Random) -> None:
        self.shop, self.rng = shop, rng
        self.scripts = [script for script in scripts if not script.restarts]
        self.questions = [question for question in load_help_questions() if question.article]
        self.busy: set[str] = set()
        self._look()

    def _look(self) -> None:
        facts = dump(self.shop)
        self.products = facts["products"]
        self.market = Market.of(facts)
        self.market.taken |= self.busy
        if not self.market.customers:
            raise LabError(f"{self.shop} has no customers", "python -m stage3_agents_llmops.agent reset --shop PATH")

    def next(self) -> Wish:
        """Somebody who is not talking yet. Call `done` when the conversation is over.

        Raises:
            LabError: every customer of the shop is talking.
        """
        wish = self._question() if self.rng.random() < ASKS else self._script() or self._question()
        self.busy.add(wish.customer_id)
        self.market.taken.add(wish.customer_id)
        return wish

    def done(self, wish: Wish) -> None:
        """A conversation is over."""
        self.busy.discard(wish.customer_id)

    def _script(self) -> Wish | None:
        for attempt in range(TRIES):
            script = self.rng.choice(self.scripts)
            try:
                found = self.market.find(script, self.rng)
            except LabError:
                if attempt == 0:
                    self._look()
                continue
            case = open_case(script, found, self.shop, self.rng, self.market.today, self.products)
            return Wish(found.customer_id, script.language, script.name, case)
        return None

    def _question(self) -> Wish:
        free = [id for id in self.market.customers if id not in self.busy]
        if not free:
            raise LabError(f"all {len(self.busy)} customers of {self.shop} are talking", "fewer --customers")
        customer_id = self.rng.choice(free)
        language = self.market.customers[customer_id]["language"]
        mine = [question for question in self.questions if question.language == language]
        asked = self.rng.sample(mine, self.rng.randint(1, MOST_QUESTIONS))
        return Wish(customer_id, language, "asks the help centre", questions=tuple(asked))
