"""Each test names the bug that it catches. `train` and `sample` have files of their own."""

import json
from pathlib import Path

import pytest

from labkit.runs import read_report
from stage1_foundations.gpt.ablation import GROUPS


@pytest.fixture
def trained(cli, corpus_file, runs) -> Path:
    """The run folder of a small model."""
    words = ["--preset", "smoke", "--data", corpus_file, "--dtype", "fp32", "--steps", 4, "--eval-every", 4]
    assert cli("train", *words)[0] == 0
    return runs / "stage1" / "gpt" / "latest-train"


@pytest.mark.parametrize("shape", ["modern", "gpt2", "llama"])
def test_anatomy_draws_every_shape(cli, corpus_file, runs, shape):
    """Catches: a figure that only the modern shape has the parts for; a figure without a file."""
    words = ["--preset", "smoke", "--data", corpus_file, "--dtype", "fp32", "--steps", 2, "--shape", shape]
    assert cli("train", *words)[0] == 0
    code, _, error = cli("anatomy", "--data", corpus_file)
    assert code == 0, error
    folder = runs / "stage1" / "gpt" / "latest-anatomy"
    figures = {figure["path"] for figure in read_report(folder)["figures"]}
    assert figures == {"attention.png", "positions.png", "feed_forward.png", "context.png"}
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in figures)


def test_anatomy_without_a_model_is_one_clear_line(cli):
    """Catches: a traceback on a fresh clone."""
    code, _, error = cli("anatomy")
    assert code == 2 and len(error.splitlines()) == 2 and "no trained model yet" in error


def test_anatomy_of_a_text_too_short(cli, trained, corpus_file):
    """Catches: an attention map of one token, or an error from matplotlib."""
    code, _, error = cli("anatomy", "--data", corpus_file, "--text", "t")
    assert code == 2 and "shorter than two tokens" in error


@pytest.mark.parametrize("command", ["sample", "anatomy"])
def test_a_truncated_checkpoint_is_one_clear_line(cli, trained, corpus_file, command):
    """Catches: a traceback from inside torch."""
    path = trained / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:5000])
    code, _, error = cli(command, "--checkpoint", path)
    assert code == 2 and len(error.splitlines()) == 2
    assert "is truncated or is not a checkpoint (5,000 bytes)" in error


def test_ablation_exchanges_every_part(cli, corpus_file, runs):
    """Catches: a variant that trains the base model under another name; a table that lacks one."""
    code, out, error = cli("ablate", "--preset", "smoke", "--data", corpus_file, "--steps", 2, "--groups", "all")
    assert code == 0, error
    rows = json.loads((runs / "stage1" / "gpt" / "latest-ablate" / "ablation.json").read_text())
    assert [(row["group"], row["name"]) for row in rows] == [(g, name) for g in GROUPS for name in GROUPS[g]]
    assert all(row["name"] in out for row in rows)
    base = rows[0]["losses"]
    changed = [row["losses"] for row in rows if GROUPS[row["group"]][row["name"]]]
    assert base not in changed
    assert len({tuple(losses) for losses in changed}) == len(changed)


def test_ablation_of_some_parts(cli, corpus_file, runs):
    """Catches: --groups that is not listened to, or that takes a misspelt part for none."""
    code, _, error = cli("ablate", "--preset", "smoke", "--data", corpus_file, "--steps", 2, "--groups", "norm")
    assert code == 0, error
    rows = json.loads((runs / "stage1" / "gpt" / "latest-ablate" / "ablation.json").read_text())
    assert [row["name"] for row in rows] == list(GROUPS["norm"])
    code, _, error = cli("ablate", "--preset", "smoke", "--data", corpus_file, "--groups", "norm,positions")
    assert code == 2 and error == "error: no part is called 'positions'\n  try: --groups \"position\"\n"


def test_bench_prints_one_json_line_a_part(cli, corpus_file, runs):
    """Catches: a line that is not JSON, a missing part, a speed-up that is not the ratio of its seconds."""
    words = ["bench", "--preset", "smoke", "--data", corpus_file, "--gpt2-steps", 4, "--vocab-size", 300]
    rows = {}
    for part in ("time_to_loss", "bpe"):
        code, out, error = cli(*words, "--parts", part)
        assert code == 0, error
        (line,) = out.splitlines()
        rows[part] = json.loads(line)
        assert rows[part]["bench"] == part
    (run,) = rows["time_to_loss"]["runs"]
    assert run["speedup"] == pytest.approx(run["gpt2"]["seconds"] / run["modern"]["seconds"])
    assert run["gpt2"]["tokens"] == 4 * 12 * 64  # nanoGPT's batch and context
    assert rows["bpe"]["merges_equal"] and rows["bpe"]["encodings_equal"]


@pytest.mark.parametrize(
    "words", [["ablate"], ["bench", "--parts", "bpe"], ["bench", "--parts", "time_to_loss"]]
)
def test_a_missing_text_is_one_clear_line(cli, tmp_path, words):
    """Catches: a traceback, or minutes of work before the name is looked at."""
    code, _, error = cli(*words, "--preset", "smoke", "--data", tmp_path / "nothing.txt")
    assert code == 2 and "error: no corpus or file named" in error and "Traceback" not in error
    assert error.splitlines()[-1].startswith("  try: ")
