"""What dead processes left unfinished goes on: an instance's own runs at its start, those of others when they die."""

import asyncio
import logging
import sqlite3
from pathlib import Path

from stage3_agents_llmops.agent.service import database as db
from stage3_agents_llmops.agent.service.instances import dead
from stage3_agents_llmops.agent.service.runs import RunManager

logger = logging.getLogger(__name__)


async def recover(runs: RunManager) -> int:
    """Go on with what this instance's last process left unfinished; returns how many runs."""
    await runs.database.call(db.take_over, "", runs.instance)  # of before there were instances
    left = await runs.database.call(db.unfinished_runs, runs.instance)
    for row in left:
        await runs.take_up(row)
    return len(left)


async def take_over(runs: RunManager, folder: Path) -> int:
    """Go on with what dead instances left unfinished; returns how many runs."""
    count = 0
    for name in await runs.database.call(db.other_instances, runs.instance):
        with dead(folder, name) as is_dead:
            left = await runs.database.call(db.take_over, name, runs.instance) if is_dead else []
        if left:
            logger.warning("%d runs of %s are taken over", len(left), name)
        for row in left:
            await runs.take_up(row)
        count += len(left)
    return count


async def watch_instances(runs: RunManager, folder: Path, seconds: float) -> None:
    """Look for dead instances, again and again, until this one takes nothing more."""
    while not (runs.draining or runs.stopping):
        try:
            await take_over(runs, folder)
        except sqlite3.Error as error:  # busy, or a full disk: again in a moment
            logger.error("dead instances cannot be looked for: %s", error)
        await asyncio.sleep(seconds)
