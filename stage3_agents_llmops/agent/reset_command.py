"""`reset`: a new shop, and no conversations."""

from dataclasses import dataclass
from pathlib import Path

from labkit.cli import Command, option, require_at_least
from labkit.errors import LabError
from labkit.progress import console
from stage3_agents_llmops.agent.settings import default_settings

KEPT_BY_THE_AGENTS = ("checkpoints.sqlite", "profiles.sqlite", "service.sqlite")
ENDS = ("", "-wal", "-shm")


@dataclass(frozen=True)
class ResetConfig:
    """How large the new shop is."""

    seed: int = option(1, "chooses order numbers, people, and who bought what")
    customers: int = option(40, "1 to 400")
    orders: int = option(160, "dealt to the customers in turn")
    shop: Path | None = option(None, "the shop's database; none is the lab's own")
    state: Path | None = option(None, "the folder with the conversations; none is the lab's own")
    keep_conversations: bool = option(False, "a new shop only")


def run_reset(config: ResetConfig, preset: str) -> int:
    """Replace the shop, and remove the files with conversations and profiles.

    Raises:
        LabError: impossible numbers, or something that is no shop stands in the way.
    """
    from data.shop import create_shop, fingerprint

    require_at_least(config, 1, "customers", "orders")
    settings = default_settings(shop=config.shop, state_dir=config.state)
    path = Path(settings.shop)
    if not path.parent.exists() and config.shop is not None:
        raise LabError(f"there is no folder {path.parent}", f"mkdir {path.parent}")
    path.parent.mkdir(parents=True, exist_ok=True)
    create_shop(path, config.seed, config.customers, config.orders)
    console.print(f"{path}: {config.customers} customers, {config.orders} orders, seed {config.seed}")
    console.print(f"orders {fingerprint(path)['orders'][:12]}")
    if not config.keep_conversations:
        removed = [name for name in KEPT_BY_THE_AGENTS if remove(Path(settings.state_dir), name)]
        console.print(f"removed: {', '.join(removed)}" if removed else "there were no conversations")
    return 0


def remove(folder: Path, name: str) -> bool:
    """A SQLite file with its log; whether it was there."""
    there = (folder / name).exists()
    for end in ENDS:
        (folder / f"{name}{end}").unlink(missing_ok=True)
    return there


COMMANDS = [Command("reset", "a new shop, and no conversations", ResetConfig, run_reset)]
