"""Where a pipeline keeps what it has: one folder, so that two pipelines never meet."""

from dataclasses import dataclass
from pathlib import Path

from labkit.runs import runs_root

HOME = "stage3/pipeline/home"


@dataclass(frozen=True)
class Home:
    """The places below a pipeline's folder."""

    folder: Path

    @classmethod
    def at(cls, folder: Path | None = None) -> "Home":
        """The folder that was given, or the lab's own."""
        return cls(Path(folder or runs_root() / HOME).expanduser().absolute())

    @property
    def log(self) -> Path:
        """Events of all deployments."""
        return self.folder / "events.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the one controller that may run."""
        return self.folder / "controller.lock"

    @property
    def processes(self) -> Path:
        """Records and logs of processes that outlive the controller."""
        return self.folder / "processes"

    @property
    def registry(self) -> Path:
        """The releases, where no other registry is given."""
        return self.folder / "registry"

    @property
    def shop(self) -> Path:
        """The shop's database, shared by all instances that serve customers."""
        return self.folder / "shop.sqlite"

    @property
    def state(self) -> Path:
        """Conversations and runs, shared by all instances that serve customers."""
        return self.folder / "state"

    @property
    def shadow(self) -> Path:
        """A copy of shop and state for the release that only listens."""
        return self.folder / "shadow"

    @property
    def gateway(self) -> Path:
        """The gateway's routes and its token."""
        return self.folder / "gateway"

    @property
    def run_log(self) -> Path:
        """One row for every run, written by the gateway and by the probes."""
        return self.folder / "run_log.sqlite"

    def release(self, sha256: str) -> Path:
        """A release unpacked for serving."""
        return self.folder / "releases" / sha256[:12]

    def work(self, deployment: str) -> Path:
        """What a deployment makes on its way."""
        return self.folder / "work" / deployment
