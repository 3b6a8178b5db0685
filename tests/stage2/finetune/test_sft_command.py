"""`sft` from the command line on a small random base. Each test names the bug that it catches."""

import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from stage2_rag_finetune_deploy.finetune import base_model, lora
from stage2_rag_finetune_deploy.finetune.base_model import load_base

REPOSITORY = Path(__file__).resolve().parents[3]
SMALL = ("--preset", "smoke", "--dtype", "fp32", "--max-length", "600")
IDS = torch.tensor([[5, 9, 77, 30]])


def own_file(path: Path, lines: int = 12) -> Path:
    """A file of one's own in alpaca's format."""
    rows = [{"instruction": f"say {number}", "output": f"it is {number}"} for number in range(lines)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("trainer", ["hand", "trl"])
def test_a_run_leaves_an_adapter_and_a_plain_model(cli, runs, tiny_base, tmp_path, trainer):
    """Catches: an export that is not merged or not loadable, an adapter that PEFT does not read, no report."""
    own = own_file(tmp_path / "own.jsonl")
    code, out, err = cli("sft", *SMALL, "--base", tiny_base, "--data", own, "--trainer", trainer, "--lr", "0.05")
    assert code == 0, err
    folder = (runs / "stage2" / "finetune" / "latest").resolve()
    report = json.loads((folder / "report.json").read_text())
    assert report["metrics"]["val_loss"]["value"] > 0 and report["metrics"]["cost"]["value"] > 0
    assert [row["step"] for row in json.loads((folder / "history.json").read_text())] == [2, 4]
    merged, tokenizer = load_base(folder / "merged")
    adapted = lora.load_adapter(load_base(tiny_base)[0], folder / "adapter")
    assert not torch.allclose(merged(IDS).logits, load_base(tiny_base)[0](IDS).logits, atol=1e-2)
    torch.testing.assert_close(merged(IDS).logits, adapted(IDS).logits, rtol=0.05, atol=0.05)  # saved in bfloat16
    assert tokenizer.chat_template and "cost" in out
    settings = json.loads((folder / "merged" / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"  # vLLM's transformers knows this name


@pytest.mark.parametrize("trainer, steps, every", [("hand", 200, 20), ("trl", 40, 10)])
def test_killed_and_resumed_is_the_same_run(cli, runs, tiny_base, tmp_path, trainer, steps, every):
    """Catches: a loss curve, or a count of tokens, that changes after `kill -9`."""
    own = own_file(tmp_path / "own.jsonl")
    words = ("sft", *SMALL, "--trainer", trainer, "--base", tiny_base, "--data", own, "--steps", steps,
             "--eval-every", every)  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "stage2_rag_finetune_deploy.finetune", *map(str, words)],
                               cwd=REPOSITORY, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    pattern = {"hand": "state.pt", "trl": "checkpoint-*/trainer_state.json"}[trainer]
    state, deadline = None, time.monotonic() + 300
    while state is None and process.poll() is None and time.monotonic() < deadline:
        state = next(runs.glob(f"stage2/finetune/sft-*/checkpoint/{pattern}"), None)
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and state is not None
    folder = next(parent for parent in state.parents if parent.name.startswith("sft-"))
    code, _, err = cli(*words, "--resume", folder)
    assert code == 0, err
    resumed = json.loads((runs / "stage2/finetune/latest/history.json").read_text())
    assert cli(*words)[0] == 0
    whole = json.loads((runs / "stage2/finetune/latest/history.json").read_text())
    assert [{**row, "seconds": 0} for row in resumed] == [{**row, "seconds": 0} for row in whole]
    assert all(row["seconds"] > 0 for row in resumed) and len(whole) == steps // every


@pytest.mark.parametrize("trainer", ["hand", "trl"])
def test_a_run_goes_on_as_it_began(cli, runs, tiny_base, tmp_path, trainer):
    """Catches: a run that goes on with other data or another rate, without a word. The control: more steps are fine."""
    own, other = own_file(tmp_path / "own.jsonl"), own_file(tmp_path / "other.jsonl")
    words = ("sft", *SMALL, "--base", tiny_base, "--trainer", trainer, "--steps", 2)
    assert cli(*words, "--data", own)[0] == 0
    first = (runs / "stage2/finetune/latest").resolve()
    for changed, text in ((("--data", other), f"had --data {own}"), (("--data", own, "--lr", "0.5"), "had --lr 0.002")):
        code, _, err = cli(*words, *changed, "--resume", first)
        assert code == 2 and text in err, err
    code, _, err = cli(*words, "--data", own, "--steps", 4, "--resume", first)
    assert code == 0, err
    assert [row["step"] for row in json.loads((runs / "stage2/finetune/latest/history.json").read_text())] == [2, 4]


@pytest.mark.parametrize(
    "line, words",
    [("{not json", "line 3: not JSON"), ('{"instruction": "a"}', "line 3: missing field output"),
     ('{"instruction": "a", "output": " "}', "line 3: output is empty")],
)  # fmt: skip
def test_a_wrong_line_is_named(cli, runs, tiny_base, tmp_path, line, words):
    """Catches: a traceback, or a message without the line, for a file with a mistake in it."""
    own = own_file(tmp_path / "own.jsonl", 4)
    lines = own.read_text().splitlines()
    own.write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n")
    code, _, err = cli("sft", *SMALL, "--base", tiny_base, "--data", own)
    assert code == 2 and words in err and "Traceback" not in err
    assert not runs.exists()


def test_long_samples_are_counted(cli, runs, tiny_base, tmp_path):
    """Catches: samples that are cut or dropped without a word."""
    own = own_file(tmp_path / "own.jsonl", 20)
    with own.open("a") as file:
        file.write(json.dumps({"instruction": "long", "output": "x" * 700}) + "\n")
        file.write(json.dumps({"instruction": "long", "output": "x" * 700}) + "\n")
    code, out, _ = cli("sft", *SMALL, "--limit", "none", "--base", tiny_base, "--data", own)
    assert code == 0 and "1 samples are longer than 600 tokens" in " ".join(out.split())
    code, _, err = cli("sft", *SMALL, "--max-length", 5, "--base", tiny_base, "--data", own)
    assert code == 2 and "longer than 5 tokens" in err


def test_other_bad_input(cli, runs, tiny_base, tmp_path, tokenizer):
    """Catches: a traceback where one line would do, or a run that goes on with nonsense."""
    own = own_file(tmp_path / "own.jsonl")
    common = ("sft", *SMALL, "--base", tiny_base)
    for words, expected in [
        ((*common, "--data", "customer-service"), "no data set and no file"),
        ((*common, "--data", own, "--steps", 0), "--steps 0"),
        ((*common, "--data", own, "--rank", 0), "--rank 0"),
        ((*common, "--data", own, "--resume", tmp_path), "no checkpoint in"),
        ((*common, "--data", own, "--lr", "1e30", "--steps", 20), "not finite"),
        ((*common, "--data", own, "--lr", "1e30", "--steps", 20, "--trainer", "trl"), "not finite"),
        ((*common, "--data", own, "--resume", tmp_path, "--trainer", "trl"), "no checkpoint in"),
        ((*common, "--data", own, "--packing"), "TRL's"),
        (("sft", *SMALL, "--base", tmp_path, "--data", own), "config.json is missing"),
        (("ask", "--text", "hello"), "no fine-tuned model yet"),
        (("ask",), "nothing was asked"),
    ]:
        code, _, err = cli(*words)
        assert code == 2 and expected in err and "Traceback" not in err, (words, err)
        assert len(err.strip().splitlines()[-2:]) == 2


def test_a_model_without_a_template(cli, build, tokenizer, tmp_path):
    """Catches: training on text in a form that no server will send."""
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    build(0).save_pretrained(tmp_path / "bare")
    bare.save_pretrained(tmp_path / "bare")
    code, _, err = cli("sft", *SMALL, "--base", tmp_path / "bare", "--data", own_file(tmp_path / "own.jsonl"))
    assert code == 2 and "no chat template" in err, err


def test_a_full_disk_leaves_no_half_model(cli, runs, tiny_base, tmp_path, monkeypatch):
    """Catches: a merged folder with config and without weights, which the next lab would take for a model."""
    from transformers import LlamaForCausalLM

    def full(self, folder, **_):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "config.json").write_text("{}")
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", full)
    code, _, err = cli("sft", *SMALL, "--base", tiny_base, "--data", own_file(tmp_path / "own.jsonl"))
    assert code == 2 and "no space left" in err, err
    assert not list(runs.glob("**/merged")) and not list(runs.glob("**/.tmp-*"))


def test_a_disk_that_is_really_full(tiny_base, tmp_path):
    """Catches: what torch's writer says of a full disk, in the place of what to do; half a checkpoint."""
    full = tmp_path / "full"
    full.mkdir()
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=60k tmpfs {full}"
    if not shutil.which("unshare") or subprocess.run([*alone, mount], capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    words = ["sft", *SMALL, "--base", str(tiny_base), "--data", str(own_file(tmp_path / "own.jsonl"))]
    lab = shlex.join([sys.executable, "-m", "stage2_rag_finetune_deploy.finetune", *words])
    done = subprocess.run([*alone, f"{mount} && {lab}; code=$?; find {full} -type f; exit $code"], cwd=REPOSITORY,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "COURSE_LAB_RUNS": str(full)},
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and "no space left on the disk while writing" in done.stderr, done.stderr
    assert "state.pt" not in done.stdout and "report.json" in done.stdout


@pytest.mark.assets
@pytest.mark.parametrize("trainer", ["hand", "trl"])
def test_the_gpu_preset(cli, runs, tokenizer, tmp_path, monkeypatch, trainer):
    """Catches: a preset that only a machine with a GPU would find broken. Its own options, on a small 7B."""
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2}  # fmt: skip
    monkeypatch.setattr(base_model, "QWEN_7B", {**base_model.QWEN_7B, **small})
    words = ("sft", "--preset", "gpu", "--device", "cpu", "--steps", 2, "--eval-every", 1, "--eval-samples", 2,
             "--limit", 8, "--data", own_file(tmp_path / "own.jsonl"))  # fmt: skip
    by_hand = ("--trainer", "hand", "--no-four-bit", "--no-packing") if trainer == "hand" else ()
    code, out, err = cli(*words, *by_hand)
    assert code == 0, err
    assert "tokens/s" in out and "GB" in out and "--base FOLDER" in str(json.loads(
        (runs / "stage2/finetune/latest/report.json").read_text())["next"])  # fmt: skip
    assert not (runs / "stage2/finetune/latest/merged").exists()  # of random weights nobody wants one
