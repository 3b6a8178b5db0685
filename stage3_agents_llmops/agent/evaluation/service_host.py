"""The service as the evaluation runs it: `serve` in a process of its own, killed where a script leaves."""

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving.server_process import free_port
from stage3_agents_llmops.agent.evaluation.conversation import ConversationOverHttp
from stage3_agents_llmops.agent.service.auth import Tokens
from stage3_agents_llmops.agent.settings import AgentSettings

START_LIMIT = 120.0  # seconds until /health answers


class AgentAsService:
    """See Agent. A restart is `kill -9`."""

    name = "service"

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self._tokens = Tokens.open(Path(settings.state_dir))
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._log: Any = None

    async def __aenter__(self) -> "AgentAsService":
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __aexit__
        await self._start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for client in self._clients.values():
            await client.aclose()
        await self._kill()
        self._log.close()

    async def restart(self) -> None:
        """End it without a warning, and start it on the same files and the same port."""
        await self._kill()
        await self._start()

    async def converse(self, customer_id: str, language: str, thread_id: str) -> ConversationOverHttp:
        """A new thread; the service names it."""
        if customer_id not in self._clients:
            self._clients[customer_id] = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{self._port}", timeout=60, trust_env=False,
                headers={"Authorization": f"Bearer {self._tokens.issue(customer_id)}"},
            )  # fmt: skip
        return await ConversationOverHttp.open(self._clients[customer_id], language)

    async def _start(self) -> None:
        settings = self.settings
        words = ["--shop", settings.shop, "--state", settings.state_dir, "--port", self._port, "--no-demo"]
        words += ["--endpoint", settings.endpoint] if settings.endpoint else []
        words += ["--model", settings.model] if settings.model else []
        command = [sys.executable, "-m", "stage3_agents_llmops.agent", "serve", *map(str, words)]
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
        )
        try:
            async with asyncio.timeout(START_LIMIT):
                await self._healthy()
        except TimeoutError:
            await self._kill()
            raise LabError("the service did not start in time", self._last_line()) from None

    async def _healthy(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            while self._process.returncode is None:
                try:
                    if (await client.get(f"http://127.0.0.1:{self._port}/health")).is_success:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.2)
        raise LabError("the service ended by itself", self._last_line())

    async def _kill(self) -> None:
        if self._process and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "python -m stage3_agents_llmops.agent serve"
