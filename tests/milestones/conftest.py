"""Hand-in folders for the grader's tests: a stand-in package, a run, a checkpoint."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import data
from labkit.runs import start_run
from milestones.criteria import Month, load_criteria

STAND_IN = Path(__file__).with_name("stand_in") / "checkpoint.py"
SMALL = {
    "samples": 4,
    "characters": 120,
    "held_out_passages": 3,
    "passage_characters": 300,
    "causal_prefixes": 8,
}


@pytest.fixture(scope="session")
def tiny() -> str:
    """The text that stand-ins are made from."""
    return data.load_text("tiny-shakespeare")


@pytest.fixture(scope="session")
def trigrams(tiny: str) -> tuple[str, torch.Tensor]:
    """The characters of the text, and log probabilities of each after every two: (V, V, V)."""
    characters = "".join(sorted(set(tiny)))
    ids = torch.tensor([characters.index(character) for character in tiny])
    size = len(characters)
    flat = (ids[:-2] * size + ids[1:-1]) * size + ids[2:]
    counts = torch.bincount(flat, minlength=size**3).view(size, size, size) + 0.1
    return characters, (counts / counts.sum(-1, keepdim=True)).log()


@pytest.fixture
def month() -> Month:
    """Month 1 with fewer and shorter samples: what is tested is not how well anything writes."""
    month = load_criteria().month(1)
    return replace(month, settings=month.settings | SMALL | {"answer_limit": 30, "time_limit": 60})


@pytest.fixture
def hand_in(
    tmp_path: Path, tiny: str, trigrams: tuple[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """A function that makes a hand-in folder whose model behaves in one way."""

    def make(
        behaviour: str = "honest", data_name: str = "tiny-shakespeare", source: str = "", text: str = tiny
    ) -> Path:
        folder = tmp_path / "hand-in"
        package = folder / "stage1_foundations" / "gpt"
        package.mkdir(parents=True)
        for init in (package.parent / "__init__.py", package / "__init__.py"):
            init.touch()
        shutil.copy(STAND_IN, package / "checkpoint.py")
        characters, table = trigrams
        state = {
            "format": 1,
            "model_config": {"context": 64, "behaviour": behaviour},
            "tokenizer": {"kind": "character", "characters": characters},
            "data": {"name": data_name, "sha256": hashlib.sha256(text.encode()).hexdigest()},
            "model": {"table": table},
        }
        with monkeypatch.context() as patch:
            patch.setenv("COURSE_LAB_RUNS", str(folder / "runs"))
            with start_run(
                "stage1", "gpt", "train", {"data": source or data_name}, preset="cpu", seed=1
            ) as run:
                torch.save(state, run.dir / "checkpoint.pt")
                run.artefact("checkpoint.pt", kind="checkpoint")
        return folder

    return make
