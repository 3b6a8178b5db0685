"""The options that every command has which opens the agents, and what they mean."""

from dataclasses import dataclass
from pathlib import Path

from labkit.cli import option
from labkit.errors import LabError
from stage3_agents_llmops.agent.settings import AgentSettings, default_settings


@dataclass(frozen=True)
class AgentOptions:
    """The shop, where conversations are kept, and which models are asked."""

    shop: Path | None = option(None, "the shop's database; none is the lab's own, made where there is none")
    state: Path | None = option(None, "the folder with conversations and runs; none is the lab's own")
    release: Path | None = option(None, "a release's folder, as the registry loads it; none is the checkout's own")
    endpoint: str | None = option(None, "an OpenAI-compatible server that understands messages, http://HOST:PORT/v1")
    model: str | None = option(None, "its model; none is the first that it lists")
    wording_endpoint: str | None = option(None, "an OpenAI-compatible server that may rephrase answers")
    wording_model: str | None = option(None, "its model")
    database_url: str | None = option(None, "postgresql://... keeps conversations there")


def settings_of(options: AgentOptions) -> AgentSettings:
    """The agents' settings; the lab's own shop is made where there is none.

    Raises:
        LabError: there is no shop at the path that was given.
    """
    from data.shop import create_shop

    settings = default_settings(
        shop=options.shop, state_dir=options.state, endpoint=options.endpoint, model=options.model,
        wording_endpoint=options.wording_endpoint, wording_model=options.wording_model,
        database_url=options.database_url, release=options.release,
    )  # fmt: skip
    if not Path(settings.shop).exists():
        if options.shop is not None:
            raise LabError(f"there is no shop at {options.shop}", "leave --shop out, or reset --shop PATH makes one")
        Path(settings.shop).parent.mkdir(parents=True, exist_ok=True)
        create_shop(settings.shop)
    return settings
