"""The gateway's admin API from a program: read the table, change it with compare-and-set."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from labkit.errors import LabError
from stage3_agents_llmops.pipeline.gateway.admin_token import admin_token
from stage3_agents_llmops.pipeline.gateway.routes import Routes, RoutesConflict, parse_routes

TIMEOUT = 5.0
TRIES = 5  # of a change, against others who change the table in between


class GatewayClient:
    """Reads and changes the routes of one gateway.

    Args:
        token: what HOME/gateway/token holds.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url, self._headers = url, {"Authorization": f"Bearer {token}"}

    @classmethod
    def of_home(cls, home: Path, url: str) -> "GatewayClient":
        """With the token of a pipeline's folder."""
        return cls(url, admin_token(home / "gateway"))

    def routes(self) -> Routes:
        """The table in force. Raises LabError: no answer."""
        return routes_of(self._ask("GET"))

    def clock(self) -> float:
        """What time it is at the gateway, in seconds since 1970: the clock that stamps the runs."""
        return float(self._ask("GET")["time"])

    def put(self, wanted: Routes) -> Routes:
        """Change the table whose number `wanted` has.

        Raises:
            RoutesConflict: somebody was quicker.
            LabError: no answer, or the table is refused.
        """
        table = {name: value for name, value in wanted.as_dict().items()}
        return routes_of(self._ask("PUT", table))

    def change(self, make: Callable[[Routes], Routes]) -> Routes:
        """Change the table from whatever it is now; nothing is sent where nothing changes.

        Raises:
            RoutesConflict: others changed it again and again.
        """
        for attempt in range(TRIES):
            now = self.routes()
            wanted = replace(make(now), number=now.number)
            if wanted == now:
                return now
            try:
                return self.put(wanted)
            except RoutesConflict:
                if attempt == TRIES - 1:
                    raise
        raise AssertionError

    def load(self) -> dict[str, int]:
        """Runs that are being read, by backend."""
        return dict(self._ask("GET", path="/admin/load")["runs"])

    def _ask(self, method: str, body: Any = None, path: str = "/admin/routes") -> dict[str, Any]:
        try:
            with httpx.Client(timeout=TIMEOUT, trust_env=False, headers=self._headers, verify=False) as client:
                answer = client.request(method, self.url + path, json=body)  # http: no certificates to read
        except httpx.HTTPError as error:
            raise LabError(f"the gateway at {self.url} does not answer: {type(error).__name__}",
                           "python -m stage3_agents_llmops.pipeline status") from None  # fmt: skip
        if answer.status_code == 409:
            raise RoutesConflict(answer.json()["error"], "read the routes, then again")
        if answer.is_error:
            text = answer.json().get("error", "") if "json" in answer.headers.get("content-type", "") else ""
            raise LabError(f"the gateway refuses it: {answer.status_code} {text}", "see its log")
        return answer.json()


def routes_of(answer: dict[str, Any]) -> Routes:
    """The table in an answer, which has more in it."""
    return parse_routes({name: answer[name] for name in ("number", "arms", "shadow", "salt") if name in answer})
