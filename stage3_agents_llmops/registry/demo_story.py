"""The story that `demo` tells: five releases, and the steps of their life in order.

go_live, improve, damage, go_wrong, roll_back, recover, clean_up; each step moves an alias or breaks something, and
writes down what the registry did about it.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import median

from rich.table import Table

from labkit.environment import git_state
from labkit.runs import Run
from labkit.timing import Timer
from stage3_agents_llmops.registry.course_releases import RECIPES, Recipe, build_release, draft_of_folder
from stage3_agents_llmops.registry.demo_command import DemoConfig
from stage3_agents_llmops.registry.differences import compare_releases
from stage3_agents_llmops.registry.drills import (
    KilledPublishers,
    Race,
    cut_off,
    flip_a_bit,
    race,
    remove,
    rewrite_history,
    rule_refuses,
    tamper,
)
from stage3_agents_llmops.registry.figures import plot_storage, plot_timeline
from stage3_agents_llmops.registry.file_registry import FileRegistry
from stage3_agents_llmops.registry.interface import CHAMPION
from stage3_agents_llmops.registry.release import Draft, Release
from stage3_agents_llmops.registry.timeline import spans


class Story:
    """The registry of the demo, the releases' folders, and what was measured on the way."""

    def __init__(self, run: Run, config: DemoConfig, scratch: Path) -> None:
        self.run, self.config, self.scratch = run, config, scratch
        self.folder = run.dir / "store"
        self.registry = FileRegistry(self.folder)
        self.drafts: dict[int, Draft] = {}
        self.releases: list[Release] = []
        self.new_bytes: list[int] = []
        self.publish_seconds: list[float] = []
        self.races: list[Race] = []
        self.publishers: KilledPublishers | None = None

    def publish(self, recipe: Recipe) -> Release:
        """Build a release's folder, publish it, remember what it took."""
        scaled = replace(recipe, share=recipe.share * self.config.share)
        folder = build_release(scaled, self.scratch / f"release-{len(self.releases) + 1}")
        parent = self.releases[-1].sha256 if self.releases else None
        draft = draft_of_folder(folder, scaled, parent, git_state()["commit"])
        before = self._stored()
        with Timer() as timer:
            release = self.registry.publish(draft)
        self.drafts[release.version] = draft
        self.releases.append(release)
        self.new_bytes.append(self._stored() - before)
        self.publish_seconds.append(timer.seconds)
        return release

    def promote(self, version: int, expected: int | None, reason: str) -> None:
        """Move the champion."""
        self.registry.set_alias(CHAMPION, version, expected=expected, actor="demo", reason=reason)

    def race(self, quarter: int) -> None:
        """A quarter of the rounds in which two processes promote to `challenger` at the same time."""
        for number in range(quarter, self.config.races, 4):
            self.races.append(race(self.folder, "challenger", (3, 2, 1), f"race {number + 1}"))

    def kill(self, half: int) -> None:
        """Half of the publishers that are killed, at moments spread over their work."""
        if self.publishers is None:
            payload = self.scratch / "weights.safetensors"
            payload.write_bytes(os.urandom(self.config.payload * 1_000_000))
            self.publishers = KilledPublishers(self.scratch / "killed", self.drafts[1].parts, payload)
        shares = [number / self.config.kills for number in range(self.config.kills)]
        self.publishers.kill(shares[half::2])

    def _stored(self) -> int:
        return sum(path.stat().st_size for _, path in self.registry.store.stored())


def go_live(story: Story) -> None:
    """Three releases; the first one goes live."""
    story.publish(RECIPES[0])
    story.promote(1, None, "first release")
    story.publish(RECIPES[1])
    story.publish(RECIPES[2])
    only = compare_releases(story.releases[1], story.releases[2]).changed_parts == ("graph",)
    story.run.metric("graph_only", only, "", (1, 1), "the third release differs from the second in its graph only")
    story.race(0)


def improve(story: Story) -> None:
    """The second release finds more intents and goes live."""
    one, two = (release.manifest.metrics["intents_right"] for release in story.releases[:2])
    story.promote(2, 1, f"intents right {one:.3f} -> {two:.3f}")
    story.race(1)


def damage(story: Story) -> None:
    """A byte, half a file and a whole file are lost; a line of the history is rewritten."""
    manifest = story.releases[2].manifest
    file = next(file for file in manifest.files if file.path == "graph/graph.json")  # no other release has it
    done = [tamper(story.registry, 3, file, how, story.drafts[3], story.scratch)
            for how in (flip_a_bit, cut_off, remove)]  # fmt: skip
    noticed = rewrite_history(story.folder, story.scratch / "rewritten", "first release", "fifth release")
    found = sum(each.found and each.refused for each in done) + noticed
    story.run.metric("damage_found", found, "", (4, 4), "of 4: bit flipped, file cut off, file lost, history rewritten")
    healed = sum(each.healed for each in done)
    story.run.metric("damage_healed", healed, "files", (3, 3), "whole again after the release was published again")


def go_wrong(story: Story) -> None:
    """The third release goes live; its wrong answers were in the evaluation, and nobody looked."""
    story.promote(3, 2, "asks again less often")
    story.kill(0)


def roll_back(story: Story) -> None:
    """Back to the second; and once more, to the first, not to the bad one."""
    two, three = (release.manifest.metrics["wrong_answers"] for release in story.releases[1:3])
    with Timer() as timer:
        first = story.registry.rollback(CHAMPION, expected=3, actor="demo", reason=f"wrong {two:.3f} -> {three:.3f}")
    story.kill(1)
    second = story.registry.rollback(CHAMPION, expected=2, actor="demo", reason="to be sure")
    right = (first.version, second.version) == (2, 1)
    story.run.metric("rollbacks_right", right, "", (1, 1), "from 3 to 2, and from there to 1")
    story.run.metric("rollback_ms", 1000 * timer.seconds, "ms", None, "one rollback, on the disk")
    story.race(2)


def recover(story: Story) -> None:
    """A release without evaluation is refused; a careful one goes live."""
    story.publish(RECIPES[3])
    words = rule_refuses(story.registry, 4)
    story.run.metric("refused", bool(words), "", (1, 1), "a champion that was never evaluated")
    story.publish(RECIPES[4])
    story.promote(5, 1, "fewer wrong answers")
    story.race(3)


def clean_up(story: Story) -> None:
    """What nobody needs goes; what a rollback needs stays."""
    share = sum(story.new_bytes) / sum(release.manifest.bytes for release in story.releases)
    story.run.metric("stored_share", share, "", (None, 0.6), "of the releases' bytes: shared files lie there once")
    gone = story.registry.collect_garbage(keep=1)
    needless = 4 in gone.versions and not {1, 5} & set(gone.versions)
    story.run.metric("collected", needless, "", (1, 1), f"the fourth went, and {gone.bytes:,} B; one and five stayed")
    shutil.copytree(story.folder, story.scratch / "copy")
    copy = FileRegistry(story.scratch / "copy")
    back = copy.rollback(CHAMPION).version
    whole = not story.registry.verify() and copy.load(CHAMPION, story.scratch / "champion").is_dir()
    story.run.metric("way_back_kept", whole and back == 1, "", (1, 1), "after gc: all whole, rollback possible")


def sum_up(story: Story) -> None:
    """What the races and the killed publishers came to."""
    wanted, won = story.config.races, sum(each.one_won for each in story.races)
    story.run.metric("one_winner", won, "rounds", (wanted, wanted), f"of {wanted}: two wrote, one won, one was told")
    meaning = f"after {story.config.kills} times kill -9 while publishing"
    story.run.metric("half_versions", story.publishers.half(), "", (0, 0), meaning)
    story.run.metric("killed_in_time", story.publishers.killed, "", (1, None), "of them had no version yet")
    collected, litter = story.publishers.collect()
    story.run.metric("litter", litter, "B", (0, 0), f"of no version, after gc took {collected:,} B")
    story.run.metric("publish_ms", 1000 * median(story.publish_seconds), "ms", None, "one release of 0.26 MB, median")


STEPS = (go_live, improve, damage, go_wrong, roll_back, recover, clean_up, sum_up)


def draw(story: Story) -> None:
    """What was in production when; what five releases take on the disk."""
    plot_timeline(spans(story.registry.history()), story.run.dir / "timeline.png")
    story.run.figure("timeline.png", "what each alias pointed at, over the demo's time")
    sizes = [(release.manifest.bytes, new) for release, new in zip(story.releases, story.new_bytes, strict=True)]
    plot_storage(sizes, story.run.dir / "storage.png")
    story.run.figure("storage.png", "bytes of each release: new ones, and those that an earlier release has")


def releases_table(story: Story) -> Table:
    """Every release with its figures."""
    table = Table(box=None, pad_edge=False)
    for title in ("", "what", "right", "asks again", "wrong", "new on disk"):
        table.add_column(title, justify="left" if title == "what" else "right", no_wrap=title != "what")
    for release, new in zip(story.releases, story.new_bytes, strict=True):
        figures = [f"{release.manifest.metrics[name]:.3f}" if release.manifest.metrics else "-"
                   for name in ("intents_right", "asked_again", "wrong_answers")]  # fmt: skip
        table.add_row(f"v{release.version}", release.manifest.note, *figures, f"{new:,} B")
    return table
