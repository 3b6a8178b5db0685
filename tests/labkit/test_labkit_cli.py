"""Each test names the bug that it catches."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from labkit.cli import Command, lab_main, option, require_at_least
from labkit.errors import LabError


@dataclass(frozen=True)
class Config:
    steps: int = option(500, "optimiser steps, 100 % of them")
    learning_rate: float = option(1e-3, "learning rate")
    norm: str = option("rms", "normalisation", choices=["rms", "layer"])
    bias: bool = option(False, "linear layers with a bias")
    minutes: float | None = option(None, "time budget")
    out: Path = option(Path("out"), "folder")


@pytest.fixture
def lab():
    """Run a command line; gives the exit code and what the lab was called with."""
    calls = []

    def run(config: Config, preset: str) -> None:
        calls.append((config, preset))
        if config.steps == 13:
            raise ValueError("a bug in the lab")

    presets = {"smoke": Config(steps=2), "cpu": Config(steps=300, minutes=5.0)}
    commands = [
        Command("train", "train a model", Config, run, presets),
        Command("info", "say more", Config, run),
    ]

    def call(line: str) -> tuple[int, list]:
        return lab_main("python -m lab", "The lab.", commands, line.split()), calls

    return call


def test_options_replace_fields_of_the_preset(lab):
    """Catches: an option that is parsed but not used; a preset that loses its other fields."""
    code, calls = lab("train --learning-rate 0.1 --bias --out a/b --norm layer")
    assert code == 0
    assert calls == [(Config(300, 0.1, "layer", True, 5.0, Path("a/b")), "cpu")]


def test_preset_none_and_no_flag(lab):
    """Catches: --preset read after the defaults are set; no way to say None or False."""
    _, calls = lab("train --minutes none --preset smoke --no-bias")
    assert calls == [(Config(steps=2, minutes=None), "smoke")]


def test_command_without_presets(lab):
    """Catches: a crash where a command has no presets."""
    assert lab("info --steps 3") == (0, [(Config(steps=3), "cpu")])


@pytest.mark.parametrize(
    ("line", "message", "advice"),
    [
        ("train --step 3", "unknown option --step", "--steps"),
        ("train --lerning-rate=3", "unknown option --lerning-rate", "--learning-rate"),
        ("trian", "unknown command trian", "python -m lab train"),
        ("train --preset cpuu", "unknown preset cpuu", "--preset cpu"),
        ("train --steps many", "--steps wants a whole number, not 'many'", "--steps 300"),
        ("train --minutes soon", "--minutes wants a number, not 'soon'", "--minutes 5.0"),
        ("train --norm rsm", "--norm cannot be 'rsm'", "--norm rms"),
        ("train --steps", "--steps: expected one argument", "python -m lab train --help"),
        ("train 300", "unexpected argument 300", "python -m lab train --help"),
    ],
)
def test_bad_command_line_is_two_lines_and_exit_2(lab, capsys, line, message, advice):
    """Catches: argparse's usage dump; an abbreviation accepted in silence; no advice."""
    code, calls = lab(line)
    assert (code, calls) == (2, [])
    assert capsys.readouterr().err == f"error: {message}\n  try: {advice}\n"


def test_bug_is_one_line_and_debug_shows_the_traceback(lab, capsys, monkeypatch):
    """Catches: a traceback thrown at a learner; --debug refused as an unknown option."""
    monkeypatch.setenv("COURSE_LAB_DEBUG", "")
    assert lab("train --steps 13")[0] == 1
    assert capsys.readouterr().err.startswith("error: ValueError: a bug in the lab\n  try: ")
    assert lab("train --steps 13 --debug")[0] == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_overview_and_help(lab, capsys):
    """Catches: `python -m lab` alone ending in an error; a % in a help text; defaults not of the preset."""
    assert lab("")[0] == 0
    overview = capsys.readouterr().out
    assert all(word in overview for word in ("The lab.", "train a model", "presets: smoke, cpu", "examples:"))
    with pytest.raises(SystemExit) as stop:
        lab("train --help --preset smoke")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "optimiser steps, 100 % of them (now: 2)" in text and "--no-bias" in text


def test_field_of_an_unsupported_type_is_the_authors_error(capsys):
    """Catches: a list field read as a string of characters."""

    @dataclass(frozen=True)
    class Wrong:
        layers: list[int] = option(None, "layers")

    code = lab_main("lab", "", [Command("go", "", Wrong, lambda *_: None)], ["go"])
    assert code == 1 and "a config field may be" in capsys.readouterr().err


class EmptyCorpus(LabError):
    """One with a constructor of its own."""

    def __init__(self, name: str) -> None:
        super().__init__("empty corpus", f"--data {name}")


@pytest.mark.parametrize("error", [LabError("empty corpus", "--data sanguo"), EmptyCorpus("sanguo")])
def test_lab_error_survives_a_process_pool(error):
    """Catches: an error that cannot be unpickled, which hangs a pool of workers; one that is of another kind then."""
    import pickle

    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.message, copy.try_next) == (type(error), "empty corpus", "--data sanguo")


def test_numbers_that_are_too_small_are_named_as_options():
    """Catches: a bound that is one off, a field's name with an underscore in the message."""
    @dataclass(frozen=True)
    class Config:
        batch_size: int = 2
        steps: int = 1

    require_at_least(Config(), 1, "batch_size", "steps")
    with pytest.raises(LabError, match=r"--batch-size 0 is not possible") as error:
        require_at_least(Config(batch_size=0), 1, "steps", "batch_size")
    assert error.value.try_next == "a number from 1 on"
