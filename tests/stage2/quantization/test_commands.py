"""Each test names the bug that it catches."""

import json
import shutil

import pytest
import torch

from stage2_rag_finetune_deploy.quantization.checkpoint import read_tensors
from stage2_rag_finetune_deploy.quantization.runtime import load_dense

TEXT = "The paved court behind the mill was quiet, and nobody had opened the gate since the harvest of 1871. "


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A calibration text."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"{number} {TEXT}" for number in range(200)))
    return path


def newest(runs, command):
    return json.loads((runs / "stage2" / "quantization" / f"latest-{command}" / "report.json").read_text())


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq", "nf4"])
def test_quantize(cli, runs, tiny_base, text, method):
    """Catches: a method that the one command cannot do; a run without a checkpoint or a next step."""
    code, out, err = cli("quantize", "--preset", "smoke", "--method", method, "--model", tiny_base,
                         "--calibration", text, "--test-tokens", 0)  # fmt: skip
    assert code == 0, err
    assert "kernel here" in out and "times smaller" in out
    report = newest(runs, "quantize")
    assert report["next"] and report["artefacts"][0]["path"] == "checkpoint"
    load_dense(runs / "stage2" / "quantization" / "latest-quantize" / "checkpoint")


def test_the_span_reaches_the_layers(cli, tiny_base, text, tmp_path):
    """Catches: a flag that is accepted and dropped on the way to GPTQ: the scales would be the same."""
    scales = []
    for span in ("search", "largest"):
        code, _, err = cli("quantize", "--preset", "smoke", "--model", tiny_base, "--calibration", text,
                           "--test-tokens", 0, "--span", span, "--out", tmp_path / span)  # fmt: skip
        assert code == 0, err
        scales.append(read_tensors(tmp_path / span)["model.layers.0.mlp.down_proj.scales"].float())
    assert scales[0].mean() < scales[1].mean()  # not one by one: the corrections of earlier inputs differ


def test_bitsandbytes_is_our_nf4(cli, tiny_base, tmp_path):
    """Catches: two libraries behind one interface that do not do the same thing."""
    for library in ("by-hand", "bitsandbytes"):
        code, _, err = cli("quantize", "--preset", "smoke", "--method", "nf4", "--model", tiny_base,
                           "--library", library, "--out", tmp_path / library, "--test-tokens", 0)  # fmt: skip
        assert code == 0, err
    ours, theirs = (load_dense(tmp_path / library, "cpu", "bf16")[0] for library in ("by-hand", "bitsandbytes"))
    for (name, first), (_, second) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert torch.equal(first, second), name


@pytest.mark.assets
def test_compare(cli, runs, tiny_base):
    """Catches: a row, a verdict or a figure missing; a baseline that does not say what it is."""
    code, out, err = cli("compare", "--preset", "smoke", "--model", tiny_base, "--bits", "4", "--test-tokens", 1024)
    assert code == 0, err
    for word in ("RTN 4", "GPTQ 4", "AWQ 4", "NF4", "INT8", "kernel", "AWQ 4 > NF4", "as a whole", "not fine-tuned"):
        assert word in out, word
    report = newest(runs, "compare")
    assert len(report["figures"]) == 1 and len(report["learnt"]) == 3
    table = json.loads((runs / "stage2" / "quantization" / "latest-compare" / "table.json").read_text())
    assert all(row["disk"] < table[0]["disk"] for row in table[1:])


@pytest.mark.assets
def test_layers(cli, runs, tiny_base):
    """Catches: errors of another layer than the one named; a figure missing."""
    code, out, err = cli("layers", "--preset", "smoke", "--model", tiny_base, "--samples", 16)
    assert code == 0, err
    assert "0.q_proj" in out and "1.down_proj" in out
    report = newest(runs, "layers")
    assert len(report["figures"]) == 2
    assert report["metrics"]["largest GPTQ / RTN calibration"]["value"] < 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--group", "48"], "group size 48 does not divide 64"),
        (["--method", "nf4", "--bits", "3"], "NF4 has 4 bits"),
        (["--bits", "5"], "5 bits do not pack"),
        (["--library", "auto-gptq"], "AutoGPTQ refuses to quantise without CUDA"),
        (["--library", "gptqmodel", "--method", "awq"], "gptqmodel has no awq"),
        (["--calibration", "nowhere.txt"], "no text of the catalog and no file"),
        (["--samples", "5000"], "5000 x 32 are wanted"),
        (["--samples", "0"], "--samples 0 is not possible"),
        (["--model", "nowhere"], "config.json is missing"),
    ],
)
def test_bad_input(cli, runs, tiny_base, text, words, message):
    """Catches: a traceback, and anything half-written."""
    if torch.cuda.is_available() and "auto-gptq" in words:
        pytest.skip("CUDA is here")
    base = [] if "--model" in words else ["--model", tiny_base]
    base += [] if "--calibration" in words else ["--calibration", text]
    code, _, err = cli("quantize", "--preset", "smoke", "--test-tokens", 0, *base, *words)
    assert code == 2 and message in err and "try:" in err
    assert not list(runs.rglob("checkpoint")) and not list(runs.rglob("model.safetensors"))


def test_broken_models(cli, tiny_base, text, tmp_path):
    """Catches: a traceback where the model's folder is incomplete, its file was cut off or it is quantised already."""
    words = ["quantize", "--preset", "smoke", "--calibration", text, "--test-tokens", 0, "--model"]
    folder = shutil.copytree(tiny_base, tmp_path / "model")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    code, _, err = cli(*words, folder)
    assert code == 2 and "cut off" in err
    file.unlink()
    code, _, err = cli(*words, folder)
    assert code == 2 and "model.safetensors is missing" in err
    code, _, err = cli("quantize", "--preset", "smoke", "--model", tiny_base, "--method", "rtn", "--test-tokens", 0,
                       "--out", tmp_path / "small")  # fmt: skip
    assert code == 0, err
    code, _, err = cli(*words, tmp_path / "small")
    assert code == 2 and "quantised already" in err
    small = tmp_path / "small" / "model.safetensors"
    small.write_bytes(small.read_bytes()[:-500])
    code, _, err = cli(*words, tmp_path / "small")
    assert code == 2 and "cut off" in err
