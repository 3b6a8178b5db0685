"""Messages with personal data in them, and messages that only look so: what does a mask catch, and what does it spoil?

    sample = load_pii("zh")[0]
    sample.text, sample.secrets        # "我的手机号是13812345678，...", (("phone", "13812345678"),)
    sample.leaked("我的手机号是[phone]，...")   # []

pii/README.md says how they were written.
"""

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError

FOLDER = Path(__file__).with_name("pii")
LANGUAGES = ("en", "zh")
KINDS = ("phone", "email", "card", "id", "iban", "passport")
MARKED = re.compile(r"\[([^\[\]]+)\]\(([a-z]+)\)")


@dataclass(frozen=True)
class PiiSample:
    """One message.

    Attributes:
        secrets: (kind, value as written); empty for a look-alike.
    """

    id: str
    language: str
    text: str
    secrets: tuple[tuple[str, str], ...] = ()

    def leaked(self, masked: str) -> list[str]:
        """The secrets of which a masked text still holds more than half: whole, or 4 signs and more in a row."""
        rest = bare(masked)
        return [value for _, value in self.secrets if any(part in rest for part in parts(bare(value)))]


def bare(text: str) -> str:
    """Letters and digits alone, full width made plain: spaces and dashes hide nothing."""
    return "".join(letter for letter in unicodedata.normalize("NFKC", text).casefold() if letter.isalnum())


def parts(value: str) -> list[str]:
    """Every stretch of more than half of a value's signs, 4 at least."""
    length = max(4, len(value) // 2 + 1)
    return [value[start : start + length] for start in range(max(1, len(value) - length + 1))]


def load_pii(language: str | None = None, positive: bool | None = None) -> list[PiiSample]:
    """The messages, in the order of the files.

    Args:
        language: "en" or "zh"; both without it.
        positive: only those with (True) or without (False) personal data; all without it.

    Raises:
        LabError: an unknown language, or a message that breaks the rules of the set.
    """
    if language not in (None, *LANGUAGES):
        raise LabError(f"there is no personal data in {language!r}", f"one of {', '.join(LANGUAGES)}")
    wanted = LANGUAGES if language is None else (language,)
    samples = [sample for name in wanted for sample in read(FOLDER / f"{name}.toml")]
    return [sample for sample in samples if positive in (None, bool(sample.secrets))]


def read(path: Path) -> list[PiiSample]:
    """One language's file: the marked messages, then the look-alikes."""
    lists = tomllib.loads(path.read_text(encoding="utf-8"))
    samples = []
    for name in ("samples", "lookalikes"):
        for number, written in enumerate(lists[name], 1):
            secrets = tuple((kind, value) for value, kind in MARKED.findall(written))
            sample = PiiSample(f"{path.stem}-{name}-{number}", path.stem, MARKED.sub(r"\1", written), secrets)
            if bool(secrets) != (name == "samples") or any(kind not in KINDS for kind, _ in secrets):
                raise LabError(f"{path.name}, {sample.id}: nothing is marked, or an unknown kind", "[value](kind)")
            samples.append(sample)
    return samples
