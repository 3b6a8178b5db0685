"""The three scripts on a tiny model. Each test names the bug that it catches."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from labkit.errors import LabError
from stage2_rag_finetune_deploy.alignment import train_dpo as dpo_module
from stage2_rag_finetune_deploy.alignment.pairs import Pair
from stage2_rag_finetune_deploy.alignment.tasks import Item
from stage2_rag_finetune_deploy.alignment.train_dpo import DpoConfig, preference_accuracy, train_dpo
from stage2_rag_finetune_deploy.alignment.train_grpo import GrpoConfig, train_grpo
from stage2_rag_finetune_deploy.alignment.train_sft import SftConfig, train_sft
from stage2_rag_finetune_deploy.finetune import base_model, lora

SMALL = {"questions": 12, "batch": 4, "rank": 4, "alpha": 8.0, "warmup": 1, "save_every": 2, "lr": 0.02}


class SayA:
    """A task that a random model can learn: the answer begins with a small letter; SFT and DPO show an a."""

    name, new_tokens, draws = "say-a", 4, 2

    def items(self, count=12):
        """Questions of different lengths."""
        return [Item([{"role": "user", "content": "q" * (1 + number % 5)}], "a", None) for number in range(count)]

    def score(self, item, reply):
        """One for a letter."""
        return float(reply[:1].islower())


@pytest.fixture(autouse=True)
def pairs(monkeypatch):
    """DPO's pairs: a is better than b."""
    monkeypatch.setattr(dpo_module, "make_pairs", lambda model, tokenizer, task, items, seed, samples: [
        Pair(item.messages, "a", "b") for item in items
    ])  # fmt: skip


SCRIPTS = {
    "sft": (train_sft, SftConfig(**SMALL, steps=6)),
    "dpo": (train_dpo, DpoConfig(**SMALL, steps=6)),
    "grpo": (train_grpo, GrpoConfig(**SMALL, steps=6, group=6)),
}


def run(name, build, tokenizer, folder=None, on_step=lambda trainer: None, **changes):
    """One script from the start: model and progress."""
    script, config = SCRIPTS[name]
    model, task = build(3), SayA()
    done = script(model, tokenizer, task, task.items(), dataclasses.replace(config, **changes), folder, on_step)
    return model, done


@pytest.mark.parametrize("name", SCRIPTS)
def test_only_the_adapter_moves(name, build, tokenizer):
    """Catches: a base that is trained along."""
    model, done = run(name, build, tokenizer)
    assert done.step == 6 and done.tokens > 0
    lora.strip(model)
    for (key, mine), (_, before) in zip(model.state_dict().items(), build(3).state_dict().items(), strict=True):
        assert torch.equal(mine, before), key


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_resumed_run_goes_the_same_way(name, build, tokenizer, tmp_path):
    """Catches: batches, draws or an optimiser that begin anew."""
    _, whole = run(name, build, tokenizer)

    def stop(trainer):
        if trainer.progress.step == 5:  # one step after the last checkpoint
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(name, build, tokenizer, tmp_path / "checkpoint", stop)
    _, resumed = run(name, build, tokenizer, resume=tmp_path)
    strip = [[{**row, "seconds": 0} for row in done.history] for done in (whole, resumed)]
    assert strip[0] == strip[1]


def test_sft_learns_its_answers(build, tokenizer):
    """Catches: a loss of the wrong sign, or of other tokens."""
    _, done = run("sft", build, tokenizer, steps=40)
    assert done.history[-1]["loss"] < 0.5 * done.history[0]["loss"]


def test_dpo_starts_at_log_two(build, tokenizer):
    """Catches: a reference that is not the start model. Without a difference to it, sigmoid gives one half."""
    _, done = run("dpo", build, tokenizer)
    assert done.history[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert done.history[0]["margin"] == pytest.approx(0, abs=1e-4)


def test_dpo_learns_the_preference(build, tokenizer):
    """Catches: chosen and rejected that changed places. The control: turned-round pairs are not preferred."""
    model, done = run("dpo", build, tokenizer, steps=20)
    assert done.history[-1]["accuracy"] == 1.0
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    pairs = [Pair(item.messages, "a", "b") for item in SayA().items(5)]
    assert preference_accuracy(model, tokenizer, pairs) == 1.0
    assert preference_accuracy(model, tokenizer, [Pair(pair.messages, "b", "a") for pair in pairs]) == 0.0


def test_grpo_raises_the_reward(build, tokenizer):
    """Catches: advantages of the wrong sign, or of another row. The control: a reward for no letter."""
    settings = {"steps": 30, "lr": 0.05, "group": 16}

    def early_and_late(done):
        return [sum(row["reward"] for row in rows) / 5 for rows in (done.history[:5], done.history[-5:])]

    early, late = early_and_late(run("grpo", build, tokenizer, **settings)[1])
    assert late > early + 0.3

    class SayNoLetter(SayA):
        """Pays for the opposite."""

        def score(self, item, reply):
            """One for anything else."""
            return 1.0 - super().score(item, reply)

    script, config = SCRIPTS["grpo"]
    done = script(build(3), tokenizer, SayNoLetter(), SayA().items(), dataclasses.replace(config, **settings))
    early, late = early_and_late(done)
    assert late > early + 0.02 and late > 0.92


def test_grpo_without_differences_learns_nothing(build, tokenizer):
    """Catches: a division of nothing by nothing; a step from rewards that are all alike."""
    class SameForAll(SayA):
        """Pays for everything."""

        def score(self, item, reply):
            """One."""
            return 1.0

    script, config = SCRIPTS["grpo"]
    model = build(3)
    done = script(model, tokenizer, SameForAll(), SayA().items(), config)
    assert all(row["frac_reward_zero_std"] == 1.0 and row["gradient"] == 0 for row in done.history)
    assert all((layer.lora_B == 0).all() for layer in lora.lora_layers(model).values())


def test_grpo_holds_on_to_the_start_with_beta(build, tokenizer):
    """Catches: a KL term of the wrong sign or to the wrong model."""
    settings = {"steps": 20, "lr": 0.05, "group": 16}
    _, held = run("grpo", build, tokenizer, beta=2.0, **settings)
    _, free = run("grpo", build, tokenizer, beta=1e-6, **settings)
    assert held.history[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert held.history[-1]["kl"] < 0.5 * free.history[-1]["kl"]


def test_updates_use_the_same_answers(build, tokenizer):
    """Catches: a ratio that is always 1, so that nothing is ever clipped."""
    _, done = run("grpo", build, tokenizer, updates=3, steps=18, lr=0.1, group=16)
    assert [row["step"] for row in done.history] == [3, 6, 9, 12, 15, 18]
    assert any(row["clip_ratio"] > 0 for row in done.history)
    _, once = run("grpo", build, tokenizer, updates=1, steps=18, lr=0.1, group=16)
    assert all(row["clip_ratio"] == 0 for row in once.history)
    with pytest.raises(LabError, match="no multiple"):
        run("grpo", build, tokenizer, updates=4)


def test_commands_end_to_end(cli, tiny_base, runs):
    """Catches: a command that cannot be started, a report without its figures, a model that cannot be loaded again."""
    code, out, _ = cli("warm-up", "--preset", "smoke", "--start", tiny_base)
    assert code == 0 and "start" in out
    merged = runs / "stage2" / "alignment" / "latest-warm-up" / "merged"
    for name in ("sft", "dpo", "grpo"):
        code, out, err = cli(name, "--preset", "smoke")
        assert code == 0, err
        folder = runs / "stage2" / "alignment" / f"latest-{name}"
        report = json.loads((folder / "report.json").read_text())
        assert {f"right {name}", f"reward {name}", f"kl {name}"} <= set(report["metrics"])
        assert len(json.loads((folder / "history.json").read_text())) == 2
    assert (merged / "config.json").is_file()


@pytest.mark.assets
@pytest.mark.parametrize("name", ["warm-up", "sft", "dpo", "grpo"])
def test_the_gpu_preset(name, cli, runs, monkeypatch):
    """Catches: a preset that only a machine with a GPU would find broken. Its own options, on a small 7B."""
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2}  # fmt: skip
    monkeypatch.setattr(base_model, "QWEN_7B", {**base_model.QWEN_7B, **small})
    code, out, err = cli(name, "--preset", "gpu", "--device", "cpu", "--steps", 2, "--batch", 2, "--questions", 4)
    assert code == 0, err
    assert "tokens/s" in out and "GB" in out and "random weights" in out
    folder = runs / "stage2" / "alignment" / f"latest-{name}"
    assert (folder / "adapter").is_dir() and not (folder / "merged").exists()
    assert json.loads((folder / "report.json").read_text())["next"].endswith("--start FOLDER")


def test_four_bits_end_in_sixteen(cli, tiny_base, runs):
    """Catches: four-bit weights written as the merged model; a merge into other weights than the start's."""
    code, _, err = cli("sft", "--preset", "smoke", "--start", tiny_base, "--four-bit", "--dtype", "fp32", "--lr", 0.05)
    assert code == 0, err
    folder = runs / "stage2" / "alignment" / "latest-sft"
    merged, start = (base_model.load_base(path)[0] for path in (folder / "merged", tiny_base))
    expected = lora.unload(lora.load_adapter(base_model.load_base(tiny_base)[0], folder / "adapter"))
    name = "model.layers.0.self_attn.q_proj.weight"
    wanted = expected.state_dict()[name].to(torch.bfloat16).float()  # as it was saved
    assert torch.equal(merged.state_dict()[name], wanted)
    assert not torch.equal(start.state_dict()[name], wanted)


def test_bad_options(cli, tiny_base, tmp_path):
    """Catches: a traceback, or an exit code that says all is well."""
    for words, text in [
        (("sft", "--start", tiny_base, "--task", "chain_summ"), "no task"),
        (("grpo", "--start", tiny_base, "--group", 1), "group"),
        (("dpo", "--start", tiny_base, "--steps", 0), "--steps 0"),
        (("sft",), "no model to start from yet"),
        (("sft", "--start", tmp_path), "config.json is missing"),
        (("sft", "--start", tiny_base, "--preset", "smoke", "--resume", tmp_path), "no checkpoint"),
        (("compare", "--seeds", "1,x"), "--seeds"),
        (("compare", "--methods", "ppo"), "ppo"),
    ]:
        code, _, err = cli(*words)
        assert code == 2 and text in err and "try:" in err and "Traceback" not in err, words


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_killed_and_resumed(tiny_base, runs, cli):
    """Catches: a checkpoint that kill -9 leaves half written, a loss curve that goes another way afterwards."""
    words = ["sft", "--preset", "smoke", "--start", str(tiny_base), "--steps", "200", "--save-every", "10",
             "--test", "0"]  # fmt: skip
    command = [sys.executable, "-m", "stage2_rag_finetune_deploy.alignment", *words]
    child = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)  # fmt: skip
    deadline, found = time.monotonic() + 300, []
    while not found and time.monotonic() < deadline and child.poll() is None:
        found = list(runs.glob("stage2/alignment/sft-*/checkpoint/state.pt"))
        time.sleep(0.02)
    child.kill()
    child.wait()
    assert found and child.returncode == -signal.SIGKILL
    step = torch.load(found[0], weights_only=True)["progress"]["step"]
    assert 0 < step < 200
    code, _, err = cli(*words, "--resume", found[0].parents[1])
    assert code == 0, err
    latest = runs / "stage2" / "alignment" / "latest-sft" / "history.json"
    resumed = json.loads(latest.read_text())
    assert cli(*words)[0] == 0
    whole = json.loads(latest.read_text())
    assert [row["step"] for row in resumed] == list(range(1, 201))
    assert [{**row, "seconds": 0} for row in resumed] == [{**row, "seconds": 0} for row in whole]
