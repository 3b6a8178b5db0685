"""One conversation over HTTP, as its customer holds it: says something, reads, thinks, has an opinion."""

import asyncio
import time
from random import Random
from typing import Any

import httpx

from data.scripted_customers.dialogue import Act, Decide, Say, Turn
from stage3_agents_llmops.agent.evaluation.conversation import turn_of
from stage3_agents_llmops.agent.service.sse_client import ServiceClient
from stage3_agents_llmops.pipeline.load.sightings import Sightings
from stage3_agents_llmops.pipeline.load.watching import Watched, watch
from stage3_agents_llmops.pipeline.load.wishes import Wish

TRIES = 5  # of a message that is turned away
LONGEST_WAIT = 5.0  # seconds
THUMBS = 0.4  # share of the answers under which there is a thumb
FAIR = 0.9  # share of the thumbs that say what the answer deserves
CLICKS = {True: 0.5, False: 0.1}  # share of the citations that are opened, by whether they are the right ones


class BrokenOff(Exception):
    """The customer gives up: the service does not take the message, or never finishes its answer."""


class Visit:
    """One conversation.

    Args:
        client: with the customer's token.
        think: seconds between messages, on average.
        stopping: nothing more is said once it is set.
    """

    def __init__(
        self, client: ServiceClient, wish: Wish, seen: Sightings, rng: Random, think: float, stopping: asyncio.Event
    ) -> None:
        self.client, self.wish, self.seen, self.rng = client, wish, seen, rng
        self.think, self.stopping = think, stopping
        self.thread_id = ""

    async def hold(self) -> None:
        """From the first word to the last."""
        try:
            opened = await self._call("POST", "/threads", {"language": self.wish.language})
            self.thread_id = opened.json()["thread_id"]
            await (self._script() if self.wish.case else self._questions())
            self.seen.conversations += not self.stopping.is_set()
        except BrokenOff:
            self.seen.broken_off += 1

    async def _script(self) -> None:
        """A scripted customer; the shop's rows say whether they got what they wanted."""
        case, last = self.wish.case, None
        act = await asyncio.to_thread(case.next, None)
        while act is not None:
            run = last = await self._say(act)
            if run is None:
                return
            turn = turn_of(run.pairs(), run.whole or 0.0)
            act = await asyncio.to_thread(case.next, turn)
            await self._thumb(run, good=turn.end in ("answered", "waiting", "human"), sure=act is None)
        verdict = await asyncio.to_thread(case.verdict)
        self.seen.judged += 1
        self.seen.solved += verdict.solved
        self.seen.unsafe += len(verdict.unconfirmed)
        if last is not None:
            await self._post(last, "resolved", {"resolved": verdict.solved})

    async def _questions(self) -> None:
        """Somebody with questions; the labels say which article answers them."""
        found = []
        run = None
        for question in self.wish.questions:
            run = await self._say(Say(question.text))
            if run is None:
                return
            turn = turn_of(run.pairs(), run.whole or 0.0)
            found.append(cites(turn, f"{question.language}/{question.article}"))
            await self._thumb(run, good=found[-1])
            if turn.citations and self.rng.random() < CLICKS[found[-1]]:
                await self._post(run, f"citations/{turn.citations[0].get('number', 1)}/click")
        if run is not None:
            await self._post(run, "resolved", {"resolved": all(found)})

    async def _say(self, act: Act) -> Watched | None:
        """One message and its answer; None when everybody is asked to go."""
        await self._pause()
        if self.stopping.is_set():
            return None
        sent = time.perf_counter()
        answer = await self._call("POST", f"/threads/{self.thread_id}/runs", body_of(act))
        run = await watch(self.client, answer.json()["run_id"], sent)
        self.seen.saw(run, self.wish.customer_id)
        if run.end is None:
            raise BrokenOff
        return run

    async def _pause(self) -> None:
        seconds = self.rng.expovariate(1 / self.think) if self.think > 0 else 0.0
        try:
            await asyncio.wait_for(self.stopping.wait(), min(seconds, 4 * self.think) + 1e-3)
        except TimeoutError:
            return

    async def _call(self, method: str, path: str, body: Any) -> httpx.Response:
        """A request that has to be taken; "too much" and "not now" are waited for. Raises BrokenOff."""
        for _ in range(TRIES):
            try:
                answer = await self.client.http.request(method, path, json=body)
            except httpx.TransportError:
                self.seen.refused += 1
                await asyncio.sleep(0.5)
                continue
            if answer.is_success:
                return answer
            self.seen.refused += 1
            await asyncio.sleep(min(LONGEST_WAIT, float(answer.headers.get("Retry-After", 0.5))))
        raise BrokenOff

    async def _thumb(self, run: Watched, good: bool, sure: bool = False) -> None:
        """Sometimes, and mostly as the answer deserves; at the end of a conversation always."""
        if not sure and self.rng.random() >= THUMBS:
            return
        up = good if self.rng.random() < FAIR else not good
        self.seen.thumbs["up" if up else "down"] += 1
        await self._post(run, "feedback", {"score": 1 if up else -1})

    async def _post(self, run: Watched, what: str, body: Any = None) -> None:
        """What is said about a run; nobody waits for it, and nobody misses it."""
        try:
            await self.client.http.post(f"/runs/{run.run_id}/{what}", json=body)
        except httpx.TransportError:
            return


def cites(turn: Turn, article: str) -> bool:
    """Whether the answer rests on the article."""
    return any(citation.get("id") == article for citation in turn.citations)


def body_of(act: Act) -> dict[str, Any]:
    """An act as the service reads it."""
    if isinstance(act, Decide):
        return {"decision": {"proposal_id": act.proposal.proposal_id, "approve": act.approve}}
    return {"message": act.text}


