"""Each test names the bug that it catches."""

import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from labkit.errors import LabError
from labkit.runs import read_report
from stage1_foundations.gpt import training
from stage1_foundations.gpt.checkpoint import load_model, read_checkpoint
from stage1_foundations.gpt.corpus import Corpus, load_corpus
from stage1_foundations.gpt.distributed import World
from stage1_foundations.gpt.evaluate import validation_loss
from stage1_foundations.gpt.train_config import PRESETS, TrainConfig


@pytest.fixture
def config(corpus_file) -> TrainConfig:
    """A second of training."""
    return TrainConfig(
        data=str(corpus_file), layers=2, heads=2, width=32, context=32, batch=8, steps=60, eval_every=20,
        sample_every=0, device="cpu", dtype="fp32",
    )  # fmt: skip


def train(config: TrainConfig, folder: Path, **hooks) -> training.Trainer:
    folder.mkdir(exist_ok=True)
    return training.train(config, folder, **hooks)


@pytest.mark.parametrize(("shape", "optimizer"), [("gpt2", "adamw"), ("modern", "muon"), ("llama", "muon")])
def test_the_loss_falls(config, tmp_path, shape, optimizer):
    """Catches: gradients that are thrown away, a rate of zero, validation on other tokens than the text's."""
    trainer = train(replace(config, shape=shape, optimizer=optimizer), tmp_path / "run")
    first, last = trainer.history[0], trainer.history[-1]
    assert abs(first["val_loss"] - math.log(trainer.tokenizer.vocab_size)) < 0.2
    assert last["val_loss"] < 0.6 * first["val_loss"]  # well below the 2.6 nats of single letters
    assert abs(last["train_loss"] - last["val_loss"]) < 0.5


def test_log_and_checkpoint_say_the_same(config, tmp_path):
    """Catches: a log line of another step, weights saved before the last update, wrong bits."""
    trainer = train(config, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows == trainer.history
    assert [row["step"] for row in rows] == [0, 20, 40, 60]
    assert [row["tokens"] for row in rows] == [256 * row["step"] for row in rows]
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    assert rows[0]["train_loss"] is None and rows[1]["train_loss"] > 0
    for row in rows:
        assert row["val_bits_per_char"] == pytest.approx(row["val_loss"] / math.log(2))
    model, tokenizer = load_model(tmp_path / "run")
    tokens = torch.tensor(tokenizer.encode(load_corpus(config.data).validation))
    assert validation_loss(model, tokens, 32) == pytest.approx(rows[-1]["val_loss"], abs=1e-5)
    assert read_checkpoint(tmp_path / "run")["step"] == 60


def test_same_seed_same_run(config, tmp_path):
    """Catches: a weight or a batch that depends on something else than the seed."""
    config = replace(config, steps=6, eval_every=3)
    losses = [
        [row["val_loss"] for row in train(replace(config, seed=seed), tmp_path / f"run{number}").history]
        for number, seed in enumerate((1, 1, 2))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_accumulation_matches_the_whole_batch(config, tmp_path):
    """Catches: gradients of micro-batches summed instead of averaged."""
    config = replace(config, steps=5, eval_every=5)
    weights = [
        train(replace(config, accumulation=parts), tmp_path / f"run{parts}").model.state_dict()
        for parts in (1, 4)
    ]
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name], atol=1e-4), name


def test_clipping_bounds_the_gradient(config, tmp_path, monkeypatch):
    """Catches: gradients clipped after the step, or one by one instead of together."""
    norms = []

    def measure(trainer: training.Trainer) -> None:
        usual = trainer._update

        def update(loss: float) -> None:
            monkeypatch.setattr(trainer.optimizers[0], "zero_grad", lambda **_: None)
            usual(loss)
            norms.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).norm().item())
            trainer.model.zero_grad()

        trainer._update = update

    trainer = training.new_trainer(
        replace(config, shape="gpt2", optimizer="adamw", clip=0.01),
        training.distributed.World(),
        torch.device("cpu"),
    )
    measure(trainer)
    for _ in range(3):
        trainer.step()
    assert norms == pytest.approx([0.01] * 3, rel=1e-3)


@pytest.mark.parametrize("changes", [{"optimizer": "adamw", "shape": "gpt2"}, {}], ids=["adamw", "muon"])
def test_nan_is_caught_and_named(config, tmp_path, changes):
    """Catches: hours of training on NaN; a checkpoint of NaN written over the last good one."""
    wild = replace(config, lr=1e30, matrix_lr=1e30, warmup=0, clip=0.0, norm="none", **changes)
    with pytest.raises(LabError, match=r"the (loss|gradient) became NaN or infinite at step \d+") as caught:
        train(wild, tmp_path / "run")
    assert "--lr 5e+29" in caught.value.try_next
    state = read_checkpoint(tmp_path / "run")
    assert all(weight.isfinite().all() for weight in state["model"].values())


def test_the_clock_ends_the_run(config, tmp_path):
    """Catches: --minutes without effect, a schedule that is cut off instead of stretched to the budget."""
    rates, started = [], time.perf_counter()
    trainer = train(
        replace(config, steps=10**6, eval_every=10**6, minutes=0.01), tmp_path / "run",
        on_step=lambda t: rates.append(t.optimizers[0].param_groups[0]["lr"]),
    )  # fmt: skip
    assert 0.6 <= trainer.seconds < time.perf_counter() - started < 20
    assert 10 < trainer.step_number < 10**6
    assert max(rates) > 0.5 * config.matrix_lr and rates[-1] < 0.2 * config.matrix_lr
    assert trainer.history[-1]["step"] == trainer.step_number  # and the end was judged and saved
    assert read_checkpoint(tmp_path / "run")["step"] == trainer.step_number


def test_steps_end_the_run_before_the_clock(config, tmp_path):
    """Catches: a time budget that keeps a short run going."""
    assert train(replace(config, steps=3, minutes=5.0), tmp_path / "run").step_number == 3


def test_bpe_losses_are_given_per_character(config, tmp_path):
    """Catches: bits per token called bits per character, which makes a larger vocabulary look worse."""
    trainer = train(replace(config, tokenizer="bpe", vocab_size=300, steps=2, eval_every=2), tmp_path / "run")
    assert trainer.characters_per_token > 2
    row = trainer.history[-1]
    expected = row["val_loss"] / math.log(2) / trainer.characters_per_token
    assert row["val_bits_per_char"] == pytest.approx(expected)


# --- the corpus ---


def test_the_parts_are_the_first_nine_tenths_and_the_rest():
    """Catches: validation text inside the training text."""
    corpus = Corpus("letters", "abcdefghij" * 7 + "xyz")
    assert corpus.train + corpus.validation == corpus.text
    assert len(corpus.validation) == 8


def test_a_file_with_a_mark_and_windows_lines(tmp_path):
    """Catches: a byte order mark that becomes a token; the same text under another hash."""
    (tmp_path / "a.txt").write_bytes("\ufeffhello\r\nworld".encode())
    (tmp_path / "b.txt").write_bytes(b"hello\nworld")
    one, other = load_corpus(str(tmp_path / "a.txt")), load_corpus(str(tmp_path / "b.txt"))
    assert one.text == "hello\nworld" and one.sha256 == other.sha256


BAD = {
    "empty": (b"", "is empty"),
    "one-character": (b"a" * 5000, "has one distinct character"),
    "short": (b"to be or not to be", "less than one context"),
    "short-validation": (b"to be or not to be, that is the question. " * 6, "the validation part has"),
    "binary": (bytes(range(256)) * 8, "is not UTF-8 text"),
    "latin-1": ("café crème, s'il vous plaît. ".encode("latin-1") * 90, "is not UTF-8 text"),
    "zeros": (b"abc\0" * 900, "binary file"),
    "missing": (None, "no corpus or file named"),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_bad_corpora_end_in_two_lines(cli, runs, tmp_path, content, words):
    """Catches: a traceback, exit code 1, a checkpoint of nothing, a report that still says running."""
    path = tmp_path / "bad.txt"
    if content is not None:
        path.write_bytes(content)
    code, _, error = cli("train", "--preset", "smoke", "--data", path)
    assert code == 2
    message, advice = error.splitlines()
    assert message.startswith("error: ") and words in message
    assert advice.startswith("  try: ") and len(advice) > 10
    (folder,) = (runs / "stage1" / "gpt").iterdir()  # no `latest` either
    assert [p.name for p in folder.iterdir()] == ["report.json"]
    report = read_report(folder)
    assert report["status"] == "failed" and words in report["error"]["message"]


def test_the_advice_for_a_short_text_works(cli, tmp_path):
    """Catches: `try: --context N` with an N that fails as well."""
    path = tmp_path / "short.txt"
    path.write_bytes(BAD["short-validation"][0])
    words = ["train", "--preset", "smoke", "--steps", 1, "--dtype", "fp32", "--data", path]
    _, _, error = cli(*words)
    context = error.rsplit("--context ", 1)[1].strip()
    assert cli(*words, "--context", context)[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning-rate", "1"], "unknown option --learning-rate"),
        (["--layers", "two"], "--layers wants a whole number, not 'two'"),
        (["--shape", "gpt3"], "--shape cannot be 'gpt3'"),
        (["--preset", "tiny"], "unknown preset tiny"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--width", "30", "--heads", "4"], "width 30 is not a multiple of heads 4"),
        (["--lr", "-1"], "--lr -1 is not between 0 and inf"),
        (["--dropout", "1"], "--dropout 1 is not between 0 and 0.99"),
        (["--warmup", "-3"], "--warmup -3 is not"),
        (["--lr", "nan"], "--lr nan is not"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--resume", "nowhere"], "no checkpoint at nowhere"),
    ],
)
def test_bad_options_end_in_two_lines(cli, corpus_file, runs, words, message):
    """Catches: a traceback from inside argparse or torch for something that was typed."""
    code, _, error = cli("train", "--preset", "smoke", "--data", corpus_file, *words)
    assert code == 2
    lines = error.splitlines()
    assert len(lines) == 2 and lines[0].startswith(f"error: {message}") and lines[1].startswith("  try: ")
    assert not list(runs.rglob("checkpoint.pt")) and not list(runs.rglob("latest*"))


def test_no_network_and_an_empty_cache_end_in_two_lines(cli, runs, tmp_path, monkeypatch):
    """Catches: pip's page of errors, a half-made asset, a run that claims to be running."""
    for name in [name for name in os.environ if name.upper().startswith("PIP_") or name.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")  # the discard port: nobody listens
    monkeypatch.setenv("COURSE_LAB_CACHE", str(tmp_path / "cache"))
    code, _, error = cli("train", "--preset", "smoke")
    assert code == 2
    message, advice = [line for line in error.splitlines() if not line.startswith("download ")]
    assert message.startswith("error: cannot download ") and message.endswith("the package index cannot be reached")
    assert advice.startswith("  try: set PIP_INDEX_URL")
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and ".locks" not in path.parts]
    assert left == [] and not list(runs.rglob("checkpoint.pt"))
    (folder,) = (runs / "stage1" / "gpt").iterdir()
    assert read_report(folder)["status"] == "failed"


def test_train_command_leaves_a_whole_run(cli, corpus_file, runs):
    """Catches: a report without the figures and the artefacts that the milestone looks for."""
    code, out, _ = cli(
        "train", "--preset", "smoke", "--data", corpus_file, "--dtype", "fp32", "--sample-every", 10
    )
    assert code == 0 and "step    20" in out and "\n  | " in out
    folder = runs / "stage1" / "gpt" / "latest-train"
    report = read_report(folder)
    assert report["status"] == "finished" and report["preset"] == "smoke" and report["seed"] == 1
    value = report["metrics"]["val_loss"]
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    assert value["unit"] == "nats/char" and value["value"] == pytest.approx(last["val_loss"])
    assert report["metrics"]["val_bits_per_char"]["value"] == pytest.approx(last["val_bits_per_char"])
    assert report["data"][0]["sha256"] == load_corpus(str(corpus_file)).sha256
    assert {a["kind"]: a["path"] for a in report["artefacts"]}["checkpoint"] == "checkpoint.pt"
    assert all((folder / figure["path"]).is_file() for figure in report["figures"])
    model, tokenizer = load_model(folder)
    assert model.config.vocab_size == tokenizer.vocab_size


def test_a_failure_in_a_process_of_its_own(spawn, tmp_path):
    """Catches: an exit code or a traceback that only the real interpreter shows."""
    process = spawn("-m", "stage1_foundations.gpt", "train", "--data", tmp_path / "nothing.txt")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert len(error.splitlines()) == 2 and error.startswith("error: no corpus or file named")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_model(preset):
    """Catches: a preset that fails only after its data has been downloaded."""
    config = PRESETS[preset]
    training.check(config, training.distributed.World())
    assert config.model_config(vocab_size=65).context == config.context


def test_every_step_and_process_has_its_own_dropout_masks():
    """Catches: two processes that drop the same features, and so average two equal gradients' noise."""
    worlds = [World(rank, 2) for rank in range(2)]
    seeds = [training.mask_seed(seed, step, world) for seed in (1, 2) for step in range(50) for world in worlds]
    assert len(set(seeds)) == len(seeds)
