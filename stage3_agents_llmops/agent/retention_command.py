"""`retention`: keep the newest checkpoints of every conversation, drop conversations that are over for long."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from labkit.cli import Command, option, require_at_least
from labkit.errors import LabError
from labkit.progress import console
from stage3_agents_llmops.agent.memory import Retention, open_checkpointer, prune
from stage3_agents_llmops.agent.settings import AgentSettings, default_settings


@dataclass(frozen=True)
class RetentionConfig:
    """What is kept."""

    keep: int = option(1, "checkpoints of each conversation, the newest ones")
    days: float = option(30.0, "conversations untouched for longer are dropped; 0 drops all of them")
    state: Path | None = option(None, "the folder with the conversations; none is the lab's own")
    database_url: str | None = option(None, "postgresql://... instead of the folder")


def run_retention(config: RetentionConfig, preset: str) -> int:
    """Prune, and say what it brought.

    Raises:
        LabError: impossible numbers, or there is nothing to prune.
    """
    require_at_least(config, 1, "keep")
    require_at_least(config, 0, "days")
    settings = default_settings(state_dir=config.state, database_url=config.database_url)
    if not config.database_url and not settings.checkpoints.exists():
        raise LabError(f"there are no conversations in {settings.state_dir}", "chat, or --state FOLDER")
    result = asyncio.run(run(settings, config))
    console.print(f"{result.threads_dropped} conversations and {result.checkpoints_dropped} checkpoints dropped")
    console.print(f"{result.size_before:,} bytes before, {result.size_after:,} after")
    return 0


async def run(settings: AgentSettings, config: RetentionConfig) -> Retention:
    """The job on the opened database."""
    async with open_checkpointer(settings) as saver:
        return await prune(saver, config.keep, config.days)


COMMANDS = [Command("retention", "prune the conversations' checkpoints", RetentionConfig, run_retention)]
