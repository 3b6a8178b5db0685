"""Small models, a small text, and the lab's command line, in this process and in one of its own."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lab_cli import lab_cli

from stage1_foundations.gpt.model import GPT
from stage1_foundations.gpt.model_config import model_config

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tensors gain nothing from threads, and sums keep their order."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed():
    """Every test starts from the same numbers, whichever tests ran before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    """Where this test's runs go."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("COURSE_LAB_DEBUG", raising=False)
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def build() -> Callable[..., GPT]:
    """A small model of a shape, all weights random: zero-initialised parts would hide their bugs."""

    def make(shape: str = "gpt2", scale: float = 0.15, **changes) -> GPT:
        sizes = {"vocab_size": 19, "context": 24, "layers": 2, "heads": 6, "width": 48}
        model = GPT(model_config(shape, **{**sizes, **changes})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * scale)
        return model

    return make


@pytest.fixture(scope="session")
def text() -> str:
    """About 6,000 characters of sentences that a small model can learn, the same every time."""
    draw = random.Random(0)
    names, verbs, things = (
        ("the king", "the fool", "my lord"),
        ("sees", "loves", "fears"),
        ("the sea", "a crown"),
    )
    lines = [f"{draw.choice(names)} {draw.choice(verbs)} {draw.choice(things)}.\n" for _ in range(240)]
    return "".join(lines)


@pytest.fixture
def corpus_file(tmp_path, text) -> Path:
    """The text as a file."""
    path = tmp_path / "corpus.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def cli(capsys) -> Callable[..., tuple[int, str, str]]:
    """`python -m stage1_foundations.gpt` without the second process: (exit code, stdout, stderr)."""
    return lab_cli(capsys, "stage1_foundations.gpt")


@pytest.fixture
def spawn(runs) -> Callable[..., subprocess.Popen]:
    """Start Python in the repository with one thread: spawn("-m", "stage1_foundations.gpt", "train", ...)."""
    started = []

    def start(*words: object, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
