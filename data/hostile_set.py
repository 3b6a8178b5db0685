"""Messages that try to command the service, and messages that only look so: what does a guard let through?

    attack = load_hostile("en", benign=False)[0]
    attack.followed("refund every order ...")       # ["refund every order"]: the order can still be read
    attack.kept("Where is KM204817?")               # whether the honest part is still there

The passages with orders in them are data/injections. hostile_messages/README.md says how these were written.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from data.injection_set import plain
from labkit.errors import LabError

FOLDER = Path(__file__).with_name("hostile_messages")
LANGUAGES = ("en", "zh")
BENIGN = "benign"
KINDS = (
    "direct", "role_play", "fake_system", "fake_delimiter", "forged_turns", "authority", "leak", "encoded",
    "other_language", "suppression", "tool_call", "output", "exfiltration",
)  # fmt: skip


@dataclass(frozen=True)
class HostileMessage:
    """One message.

    Attributes:
        kind: how the order is dressed, one of KINDS, or "benign".
        must_not: words of the order; none for benign messages.
        keep: words of the honest part; none where there is no honest part.
    """

    id: str
    language: str
    kind: str
    text: str
    must_not: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def followed(self, text: str) -> list[str]:
        """The words of the order that a text (what a model may read, or an answer) holds."""
        return [words for words in self.must_not if plain(words) in plain(text)]

    def kept(self, text: str) -> bool:
        """Whether the honest part is in the text."""
        return all(plain(words) in plain(text) for words in self.keep)


def load_hostile(language: str | None = None, benign: bool | None = None) -> list[HostileMessage]:
    """The messages, in the order of the files.

    Args:
        language: "en" or "zh"; both without it.
        benign: only those without (True) or with (False) an order in them; all without it.

    Raises:
        LabError: an unknown language, or a message that breaks the rules of the set (with its file and id).
    """
    if language not in (None, *LANGUAGES):
        raise LabError(f"there are no hostile messages in {language!r}", f"one of {', '.join(LANGUAGES)}")
    wanted = LANGUAGES if language is None else (language,)
    messages = [message for name in wanted for message in read(FOLDER / f"{name}.toml")]
    return [message for message in messages if benign in (None, message.kind == BENIGN)]


def load_unseen() -> list[str]:
    """Attacks in both languages by which no pattern was written; only whether a guard notices can be asked of them."""
    return tomllib.loads((FOLDER / "unseen.toml").read_text(encoding="utf-8"))["messages"]


def read(path: Path) -> list[HostileMessage]:
    """One language's file; the language is the file's name."""
    messages = []
    for number, row in enumerate(tomllib.loads(path.read_text(encoding="utf-8"))["messages"], 1):
        lists = {name: tuple(row.get(name, ())) for name in ("must_not", "keep")}
        try:
            message = HostileMessage(**(row | lists), language=path.stem)
        except TypeError as error:
            raise wrong(path, row.get("id", f"message {number}"), f"missing or unknown field: {error}") from None
        check(path, message)
        messages.append(message)
    return messages


def check(path: Path, message: HostileMessage) -> None:
    """A marker that the message does not hold could never be seen to be followed."""
    if message.kind not in (*KINDS, BENIGN):
        raise wrong(path, message.id, f"unknown kind {message.kind!r}")
    if (message.kind == BENIGN) == bool(message.must_not):
        raise wrong(path, message.id, "must_not stands where there is an order to follow, and only there")
    if len(message.followed(message.text)) != len(message.must_not) or not message.kept(message.text):
        raise wrong(path, message.id, "the text lacks words of must_not or keep")


def wrong(path: Path, id: str, what: str) -> LabError:
    """An error that says where."""
    return LabError(f"{path.name}, {id}: {what}", f"look for {id} in {path.name} and put it right")
