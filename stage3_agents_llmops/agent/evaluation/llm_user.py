"""A language model plays the customer: it has the script's wants and values, and finds its own words.

What it may decide are words and order of what it says. Proposals are answered by the script's rules, because a user
that confirms what it did not want would make the agent's figures worse for its own mistake (tau2-bench counted a
quarter of all failures as its simulator's, issue 392). Without an answer from the model the trial is an infrastructure
error, not the agent's.
"""

from collections.abc import Sequence

from data.scripted_customers.customer import MOST_TURNS, ScriptedCustomer, filled
from data.scripted_customers.dialogue import Act, Leave, Say, Turn
from data.scripted_customers.judge import Case
from data.scripted_customers.script import SENSITIVE, Step
from stage3_agents_llmops.agent.evaluation.conversation import InfrastructureError
from stage3_agents_llmops.agent.model_client import ModelClient, ModelUnavailable

STOP = "###STOP###"
LANGUAGES = {"en": "English", "zh": "Chinese"}
PROMPT = """You play a customer who chats with an online shop. Write only the customer's next message, in {language}, \
one or two short sentences. You are not the shop and never answer for it.
You want these things, one after the other:
{wants}
Copy numbers and addresses exactly as they stand above. Answer questions with what stands above; what does not stand \
there you do not know. When everything has been dealt with, or the shop has refused for good, write only {stop}."""


class LlmUser(ScriptedCustomer):
    """A customer whose words come from a model.

    Args:
        case: whose customer this one replaces.
        client: of the model.
    """

    def __init__(self, case: Case, client: ModelClient) -> None:
        known = case.customer
        super().__init__(known.script, known.values, known.rng)
        self._client = client
        self._messages: list[dict[str, str]] = [{"role": "system", "content": self._prompt()}]
        self._words = ""
        self.heard_from = [0] * len(self.script.steps)  # a model may ask in any order
        self._open = [(step, a) for step in self.script.steps for a in step.does if a.tool in SENSITIVE]
        self._open += [(step, None) for step in self.script.steps if step.proposes]
        self._left = not self.script.restarts

    async def think(self, turn: Turn | None) -> None:
        """Ask the model what to say next. Raises InfrastructureError."""
        self._words = ""
        if turn:
            self._messages.append({"role": "user", "content": turn.text or "(no answer)"})
        if turn and turn.proposal:
            return
        begin = self._messages if turn else [*self._messages, {"role": "user", "content": "(the chat is open)"}]
        try:
            reply = await self._client.chat(begin, max_tokens=120, temperature=0.7)
        except ModelUnavailable as error:
            raise InfrastructureError(f"the simulated customer: {error}") from None
        self._words = reply.text.strip()
        self._messages.append({"role": "assistant", "content": self._words})

    def next(self, turn: Turn | None) -> Act | None:
        """As ScriptedCustomer, in the model's words."""
        if self._pending:
            act, self._pending = self._pending, None
        elif turn and turn.proposal:
            act = self._answer_proposal(turn.proposal)
            self._messages.append({"role": "assistant", "content": "(answers the shop's question with a button)"})
        elif STOP in self._words or self.turns >= MOST_TURNS:
            self.done = True
            return None
        else:
            act = Say(self._words)
        if not self._left and turn is not None and not isinstance(act, Leave):
            self._left, self._pending = True, act
            return Leave()
        self.turns += not isinstance(act, Leave)
        return act

    def _prompt(self) -> str:
        wants = [f"{place}. {self._want(step)}" for place, step in enumerate(self.script.steps, start=1)]
        return PROMPT.format(language=LANGUAGES[self.script.language], wants="\n".join(wants), stop=STOP)

    def _want(self, step: Step) -> str:
        said: Sequence[str] = [part[0] for part in step.parts] if step.parts else [step.say[0]]
        return filled(" ".join(said), self.values)
