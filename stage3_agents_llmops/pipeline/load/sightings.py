"""What all customers together have seen, as figures: for the terminal, for a file, and for the pipeline."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from stage3_agents_llmops.pipeline.load.watching import Watched

UNKNOWN = "unknown"


@dataclass
class Sightings:
    """Counts and times."""

    conversations: int = 0
    solved: int = 0  # of the conversations that were judged
    judged: int = 0
    broken_off: int = 0  # by the customer, because the service did not answer
    streams: int = 0
    dropped: int = 0
    duplicated: int = 0  # events
    reordered: int = 0  # events
    reconnects: int = 0
    refused: int = 0  # messages that were turned away
    unsafe: int = 0  # writes without the customer's yes
    thumbs: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    releases: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    streams_of: Counter[str] = field(default_factory=Counter)

    def saw(self, run: Watched, customer_id: str) -> None:
        """One run."""
        self.streams += 1
        self.dropped += run.dropped
        self.duplicated += run.duplicated
        self.reordered += run.reordered
        self.reconnects += run.connections - 1
        self.ends[run.end or "none"] += 1
        release = run.release or UNKNOWN
        self.releases[release].add(customer_id)
        self.streams_of[release] += 1
        for name in ("first_event", "first_token", "whole"):
            if (value := getattr(run, name)) is not None:
                self.times[name].append(value)

    def percentile(self, name: str, share: float) -> float | None:
        """Seconds; None where nothing was seen."""
        return float(np.quantile(self.times[name], share)) if self.times[name] else None

    def as_dict(self, seconds: float) -> dict[str, Any]:
        """For a file."""
        names = ("conversations", "solved", "judged", "broken_off", "streams", "dropped", "duplicated", "reordered",
                 "reconnects", "refused", "unsafe")  # fmt: skip
        times = {f"{name}_p{share}": self.percentile(name, share / 100)
                 for name in ("first_event", "first_token", "whole") for share in (50, 95)}  # fmt: skip
        by_release = {release: {"customers": len(customers), "streams": self.streams_of[release]}
                      for release, customers in self.releases.items()}  # fmt: skip
        return {
            "seconds": round(seconds, 2), **{name: getattr(self, name) for name in names},
            "failed": self.ends["failed"], "ends": dict(self.ends), "thumbs": dict(self.thumbs), **times,
            "by_release": by_release,
        }  # fmt: skip

    def table(self, seconds: float) -> Table:
        """For the terminal."""
        table = Table(title=f"what the customers saw in {seconds:.0f} s")
        table.add_column("what")
        table.add_column("how many", justify="right")
        rate = self.streams / max(seconds, 1e-9)
        ends = ", ".join(f"{count} {end}" for end, count in self.ends.most_common())
        rows = [
            ("conversations", f"{self.conversations}; {self.solved} of {self.judged} that were judged are solved"),
            ("answers", f"{self.streams} ({rate:.1f} a second): {ends}"),
            ("streams dropped", str(self.dropped)),
            ("events duplicated", str(self.duplicated)),
            ("events out of order", str(self.reordered)),
            ("came back to a stream", str(self.reconnects)),
            ("messages turned away", str(self.refused)),
            ("writes without a yes", str(self.unsafe)),
            ("thumbs", f"{self.thumbs['up']} up, {self.thumbs['down']} down"),
        ]
        for name in ("first_event", "first_token", "whole"):
            p50, p95 = self.percentile(name, 0.5), self.percentile(name, 0.95)
            if p50 is not None:
                rows.append((name.replace("_", " "), f"p50 {p50:.2f} s, p95 {p95:.2f} s"))
        for release, customers in sorted(self.releases.items()):
            rows.append((f"release {release}", f"{len(customers)} customers, {self.streams_of[release]} answers"))
        for row in rows:
            table.add_row(*row)
        return table
