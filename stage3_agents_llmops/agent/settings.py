"""What can be set about the agents: one frozen dataclass that the commands, the service and the tests share."""

from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError
from labkit.runs import runs_root

STATE_FOLDER = "stage3/agent/state"


@dataclass(frozen=True)
class AgentSettings:
    """Where the agents keep things, which models they ask, and where they stop.

    The recursion limit is a sum: guard, classify and supervisor are 3 steps; each of 4 requests takes an agent, the
    write and the supervisor again, 12; each of 4 handoffs an agent and the supervisor, 8; generate, check and confirm
    are 3. That is 26; LangGraph's own limit of 10007 would let a loop run for minutes.
    """

    shop: Path  # the shop's database, see data/shop
    state_dir: Path  # checkpoints, profiles, and what the service keeps
    release: Path | None = None  # folder with model, knowledge and wording, see release.py; None: the checkout's own
    database_url: str | None = None  # postgresql://... keeps the checkpoints there instead of in state_dir
    endpoint: str | None = None  # OpenAI-compatible server that understands messages (stage 2's tuned model)
    model: str | None = None  # its model's name; None: the first that the server lists
    api_key: str | None = None
    wording_endpoint: str | None = None  # OpenAI-compatible server that may rephrase the answers
    wording_model: str | None = None
    wording_api_key: str | None = None
    deadline: float = 4.0  # seconds that one model call may take, all tries together
    abstain_below: float | None = None  # confidence; None: the threshold that was calibrated with the classifier
    recursion_limit: int = 30
    max_handoffs: int = 4  # from agent to agent, in one run
    max_requests: int = 4  # taken from one message
    max_message_chars: int = 4000
    failures_until_human: int = 2  # messages in a row that nobody understood
    angry_until_human: int = 2  # angry messages in one conversation
    max_messages: int = 200  # of one conversation that its state keeps
    keep_checkpoints: int = 3  # of one thread, pruned after every run
    ask_before_writing: bool = True  # False takes the request for the yes; the course's unsafe release does
    typing_pause: float = 0.0  # seconds between the pieces of an answer, as if somebody typed it

    def __post_init__(self) -> None:
        for name in ("deadline", "recursion_limit", "max_requests", "max_message_chars", "keep_checkpoints"):
            if getattr(self, name) <= 0:
                raise LabError(f"{name} {getattr(self, name)} is not possible", f"a {name} above 0")
        if self.typing_pause < 0:
            raise LabError(f"typing_pause {self.typing_pause} is not possible", "seconds from 0 on")

    @property
    def checkpoints(self) -> Path:
        """The SQLite file with the conversations, where no database_url is given."""
        return Path(self.state_dir) / "checkpoints.sqlite"

    @property
    def profiles(self) -> Path:
        """The SQLite file with what is kept about a customer across conversations."""
        return Path(self.state_dir) / "profiles.sqlite"


def default_settings(**changes: object) -> AgentSettings:
    """The settings of the lab itself: shop and state below `runs/stage3/agent`. A change that is None is none."""
    folder = runs_root() / STATE_FOLDER
    given = {name: value for name, value in changes.items() if value is not None}
    return AgentSettings(**{"shop": folder / "shop.sqlite", "state_dir": folder} | given)
