"""A hand-in whose lab is a stand-in: the package of one command, beside the course's own data and labkit."""

import shutil
from pathlib import Path

import data

NOT_COPIED = shutil.ignore_patterns("*.md", "__pycache__")


def write_hand_in(folder: Path, lab: str, stand_in: Path, behaviour: str) -> None:
    """Make `folder`: `python -m LAB` runs the stand-in, which finds its behaviour in behaviour.txt.

    Args:
        lab: the package's name, as stage3_agents_llmops.agent.
    """
    package = folder.joinpath(*lab.split("."))
    package.mkdir(parents=True)
    for init in (package.parent / "__init__.py", package / "__init__.py"):
        init.touch()
    shutil.copy(stand_in, package / "__main__.py")
    for name in ("data", "labkit"):
        source = Path(data.__file__).parent.parent / name
        shutil.copytree(source, folder / name, ignore=NOT_COPIED)
    (folder / "behaviour.txt").write_text(behaviour, encoding="utf-8")
