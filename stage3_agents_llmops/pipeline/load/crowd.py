"""So many customers at once, for so long: when one conversation is over, the next one begins in its place."""

import asyncio
import time
from collections.abc import Callable
from random import Random

from stage3_agents_llmops.agent.service.sse_client import ServiceClient
from stage3_agents_llmops.pipeline.load.sightings import Sightings
from stage3_agents_llmops.pipeline.load.visit import Visit
from stage3_agents_llmops.pipeline.load.wishes import Wishes

ARRIVE = 2.0  # seconds over which the first customers come: a crowd does not speak in one moment


class Crowd:
    """Customers who talk to one address.

    Args:
        url: of the gateway, or of a service.
        token_of: customer's id -> token.
        size: conversations at once.
        think: seconds between a customer's messages, on average.
    """

    def __init__(
        self, url: str, token_of: Callable[[str], str], wishes: Wishes, size: int, think: float, rng: Random
    ) -> None:
        self.url, self.token_of, self.wishes, self.size, self.think, self.rng = url, token_of, wishes, size, think, rng
        self.seen = Sightings()
        self.stopping = asyncio.Event()
        self._clients: dict[str, ServiceClient] = {}

    async def talk(self, seconds: float | None) -> Sightings:
        """For so long, or until `stop`; whoever is in the middle of an answer still reads it."""
        seats = [asyncio.create_task(self._seat(place)) for place in range(self.size)]
        try:
            await asyncio.wait(seats, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
            self.stopping.set()
            await asyncio.gather(*seats)
        finally:
            for seat in seats:
                seat.cancel()
            await asyncio.gather(*(client.http.aclose() for client in self._clients.values()))
        return self.seen

    def stop(self) -> None:
        """Nobody says anything more."""
        self.stopping.set()

    async def _seat(self, place: int) -> None:
        """One conversation after the other."""
        rng = Random(f"{self.rng.random()} {place}")
        await asyncio.sleep(rng.uniform(0, min(ARRIVE, self.think * 2)))
        while not self.stopping.is_set():
            wish = self.wishes.next()
            began = time.monotonic()
            try:
                client = self._client(wish.customer_id)
                await Visit(client, wish, self.seen, rng, self.think, self.stopping).hold()
            finally:
                self.wishes.done(wish)
            if time.monotonic() - began < 0.05:  # nobody is there: not a busy loop
                await asyncio.sleep(0.2)

    def _client(self, customer_id: str) -> ServiceClient:
        if customer_id not in self._clients:
            self._clients[customer_id] = ServiceClient(self.url, self.token_of(customer_id))
        return self._clients[customer_id]
