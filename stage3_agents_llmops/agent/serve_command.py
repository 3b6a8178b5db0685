"""`serve`: the agents, their service and the page, until Ctrl-C."""

import ipaddress
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.cli import Command, option, require_at_least
from labkit.errors import LabError
from labkit.progress import console
from stage3_agents_llmops.agent.common_options import AgentOptions, settings_of
from stage3_agents_llmops.agent.settings import AgentSettings


@dataclass(frozen=True)
class ServeConfig(AgentOptions):
    """Where the service listens and keeps its state, and which models it asks."""

    host: str = option("127.0.0.1", "where it listens; the demo's tokens are handed out on this machine only")
    port: int = option(8030, "where it listens; 0 is any free port")
    demo: bool = option(True, "hand out tokens of the shop's customers at /demo/customers")
    active: int = option(128, "runs that are accepted at once; the next is answered 429")
    working: int = option(16, "of them, those that use models at once")
    heartbeat: float = option(15.0, "seconds between comments on a silent stream")
    grace: float = option(5.0, "seconds that runs may go on after Ctrl-C or SIGTERM")
    instance: str = option("main", "its name among the processes that share a state folder")
    start_model: bool = option(False, "start stage 2's server with the newest tuned model, and ask it")
    patience: float = option(120.0, "seconds until that server has to answer")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def run_serve(config: ServeConfig, preset: str) -> int:
    """Serve until Ctrl-C.

    Raises:
        LabError: no port, no shop, no such release, or another service has the state folder under this name.
    """
    from stage2_rag_finetune_deploy.finetune.export import newest_merged
    from stage3_agents_llmops.agent.model_server import TUNED, model_server, served_release
    from stage3_agents_llmops.agent.release import ReleaseFolder
    from stage3_agents_llmops.agent.service.instances import instance
    from stage3_agents_llmops.agent.service.server import bind

    require_at_least(config, 1, "active", "working")
    if config.heartbeat <= 0 or config.grace <= 0:
        raise LabError("--heartbeat and --grace are seconds above 0", "--heartbeat 15 --grace 5")
    with bind(config.host, config.port) as listening:
        settings = settings_of(config)
        if settings.release:
            ReleaseFolder.open(settings.release)  # what is wrong with it is said before models are loaded
        with instance(Path(settings.state_dir), config.instance):
            if not config.start_model:
                with served_release(settings, config.patience) as served:
                    return serve(config, served, listening)
            if settings.endpoint:
                raise LabError("--start-model and --endpoint are two models", "one of them")
            with model_server(newest_merged(), config.patience) as address:
                return serve(config, replace(settings, endpoint=address, model=TUNED), listening)


def serve(config: ServeConfig, settings: AgentSettings, listening: socket.socket) -> int:
    """Put the parts together and run them."""
    from stage3_agents_llmops.agent.customer_service_agent import CustomerServiceAgent
    from stage3_agents_llmops.agent.guardrails.pii import mask_pii
    from stage3_agents_llmops.agent.service.app import ServiceOptions, make_app
    from stage3_agents_llmops.agent.service.limits import Limits
    from stage3_agents_llmops.agent.service.private_logs import private_logging
    from stage3_agents_llmops.agent.service.server import run_server

    def mask(text: str) -> str:
        return mask_pii(text).text

    private_logging()
    limits = Limits(active=config.active, working=config.working, heartbeat=config.heartbeat, grace=config.grace)
    demo = config.demo and is_loopback(config.host)
    options = ServiceOptions(Path(settings.state_dir), Path(settings.shop), mask, limits, demo, config.instance)
    app = make_app(lambda: CustomerServiceAgent.open(settings), options)
    host, port = listening.getsockname()[:2]

    def ready() -> None:
        facts = app.state.service.agent.facts
        console.print(f"release: {facts['release']}; understanding: {facts['understander']}; wording: "
                      f"{facts['wording']}", markup=False)  # fmt: skip
        if config.demo and not demo:
            console.print("the demo's tokens are off: they are for a service that only this machine reaches")
        address = f"[{host}]" if ":" in host else host
        console.print(f"http://{address}:{port}  (API: /docs; Ctrl-C ends it)", markup=False, soft_wrap=True)

    code = run_server(app, listening, limits, ready)
    console.print("the service is stopped, the port is free", markup=False)
    return code


COMMANDS = [Command("serve", "the agents behind HTTP, with their page", ServeConfig, run_serve)]
