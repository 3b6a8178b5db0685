"""A release on the disk: the model, the knowledge and the graph that one process serves, taken from one folder.

    model/   model.json {"kind": "classifier", ...} and the classifier's weights; or {"kind": "adapter"}, stage 2's LoRA
             adapter, which model_server.py serves where there is no --endpoint
    rag/     rag.json {"variant", "k", "thresholds", "weights"}, articles/{en,zh}/*.md
    graph/   graph.json {"overrides": {"abstain_below": 0.4, ...}}, answers/{en,zh}.toml
    release.json, evaluation.json     what the registry wrote: every file's SHA-256, and how the release was judged

Without one the agents use what the checkout holds. With one they use nothing else: a release that is half in a folder
and half in whatever code happens to lie around could not be rolled back.
"""

import dataclasses
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from labkit.cli import nearest
from labkit.errors import LabError
from labkit.files import sha256_file
from labkit.runs import digest
from stage3_agents_llmops.agent.settings import AgentSettings

CHECKOUT = "checkout"  # what an agent without a release calls its own
SIGNS = 3  # that the evidence of an article is made of, see help_index.py
ID_CHARS = 12  # of the manifest's SHA-256
KINDS = ("classifier", "adapter")
# settings that belong to how the agents behave, not to where they run
OVERRIDES = (
    "abstain_below", "recursion_limit", "max_handoffs", "max_requests", "failures_until_human", "angry_until_human",
    "ask_before_writing", "typing_pause",
)  # fmt: skip
FILES = {"model": "model/model.json", "rag": "rag/rag.json", "graph": "graph/graph.json"}


@dataclass(frozen=True)
class ReleaseFolder:
    """One release. `ReleaseFolder.open(path)` checks it first."""

    folder: Path
    id: str  # names all of its content
    model: dict[str, Any]
    rag: dict[str, Any]
    graph: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> "ReleaseFolder":
        """Read a release.

        Raises:
            LabError: there is none, a part is missing, or a file is not what the manifest says.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise LabError(f"there is no release at {folder}", "python -m stage3_agents_llmops.registry load champion")
        parts = {name: read_part(folder / path) for name, path in FILES.items()}
        release = cls(folder, release_id(folder), **parts)
        release.check()
        return release

    def check(self) -> None:
        """Refuse what the agents could not serve. Raises LabError."""
        kind = self.model.get("kind")
        if kind not in KINDS:
            raise LabError(f"{self.folder}/model holds a {kind}", f"a model of kind {' or '.join(KINDS)}")
        for name in self.overrides:
            if name not in OVERRIDES:
                best = nearest(name, OVERRIDES) or f"one of: {', '.join(OVERRIDES)}"
                raise LabError(f"{self.folder}/{FILES['graph']}: a release cannot set {name}", best)
        if not list((self.folder / "rag" / "articles").glob("*/*.md")):
            raise LabError(f"{self.folder}/rag has no articles", "rag/articles/{en,zh}/*.md")

    @property
    def overrides(self) -> dict[str, Any]:
        """Settings of the agent that the release brings with it."""
        return self.graph.get("overrides", {})

    @property
    def answers(self) -> Path:
        """The folder of the wording."""
        return self.folder / "graph" / "answers"

    @cached_property
    def articles(self) -> list[Any]:
        """The help centre's articles, as data.help_articles has them. Raises LabError: a file is none."""
        from data.help_articles import LANGUAGES, parse_article

        return [
            parse_article(path.read_text(encoding="utf-8"), path.stem, language, path.name)
            for language in LANGUAGES
            for path in sorted((self.folder / "rag" / "articles" / language).glob("*.md"))
        ]

    def search_settings(self) -> dict[str, Any]:
        """The keyword arguments of Knowledge. Raises LabError: rag.json has others, or values that cannot be."""
        place, known = self.folder / FILES["rag"], ("variant", "k", "thresholds", "weights")
        for name in self.rag:
            if name not in known:
                raise LabError(f"{place} has a field {name}", nearest(name, known) or f"fields: {', '.join(known)}")
        given = dict(self.rag)
        thresholds = given.pop("thresholds", {})
        try:
            pairs = {(kind, language): float(value) for (kind, language), value in
                     ((tuple(name.split("/")), value) for name, value in thresholds.items())}  # fmt: skip
            weights = {language: [float(one) for one in row] for language, row in given.pop("weights", {}).items()}
            if any(len(row) != SIGNS + 1 for row in weights.values()):
                raise ValueError(f"weights {weights}")
            if "k" in given and not (isinstance(given["k"], int) and 0 < given["k"] <= 20):
                raise ValueError(f"k {given['k']}")
        except (AttributeError, TypeError, ValueError) as error:
            raise LabError(f"{place}: {error}", '{"k": 4, "thresholds": {"help/en": 0.5}}') from None
        return given | {"thresholds": pairs} | ({"weights": weights} if weights else {})

    def applied_to(self, settings: AgentSettings) -> AgentSettings:
        """The settings with the release's own in them.

        Raises:
            LabError: a value that the setting cannot have.
        """
        kinds = {field.name: field.type for field in dataclasses.fields(AgentSettings)}
        for name, value in self.overrides.items():
            wanted = (int, float) if "float" in str(kinds[name]) else (bool,) if "bool" in str(kinds[name]) else (int,)
            if value is not None and (not isinstance(value, wanted) or isinstance(value, bool) != (wanted == (bool,))):
                raise LabError(f"{self.folder}/{FILES['graph']}: {name} is {value!r}", f"{name}: {kinds[name]}")
        return replace(settings, **self.overrides)


def release_id(folder: Path) -> str:
    """The first characters of the manifest's SHA-256; of a folder that no registry wrote, of its files.

    Raises:
        LabError: a file is missing, or not what the manifest says.
    """
    from stage3_agents_llmops.registry.release import MANIFEST, parse_manifest

    manifest = folder / MANIFEST
    if not manifest.is_file():
        return digest(folder)[0][:ID_CHARS]
    known = parse_manifest(manifest.read_bytes(), str(manifest))
    for file in known.files:
        path = folder / file.path
        if not path.is_file() or sha256_file(path) != file.sha256:
            what = "has changed" if path.is_file() else "is missing"
            raise LabError(f"{path} {what} since the release was registered", "load the release again")
    return known.sha256[:ID_CHARS]


def read_part(path: Path) -> dict[str, Any]:
    """A part's JSON file. Raises LabError: missing, or no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LabError(f"the release has no {path}", "the folder that `registry load` wrote") from None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise LabError(f"{path} is no JSON object", "the folder that `registry load` wrote")
    return value
