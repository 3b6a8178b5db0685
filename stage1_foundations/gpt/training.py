"""The training loop.

    batch -> loss -> gradient (summed over micro-batches, averaged over processes) -> clip -> rate -> step

Around it: validation, a JSONL log, a checkpoint at every validation, samples, a time budget, and a stop that names
its reason. A run that is resumed is bit-identical to one that never stopped: tests/stage1/gpt/test_resume.py.
"""

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labkit.device import autocast, choose_device, choose_dtype, keep_freed_memory
from labkit.errors import LabError
from labkit.files import write_jsonl
from stage1_foundations.gpt import batches, checkpoint, corpus, distributed, evaluate
from stage1_foundations.gpt.model import GPT
from stage1_foundations.gpt.optimizer import build_optimizers, set_rate
from stage1_foundations.gpt.schedule import schedule_factor
from stage1_foundations.gpt.tokenizer import Tokenizer, build_tokenizer, tokenizer_from_dict
from stage1_foundations.gpt.train_config import TrainConfig

DEFAULTS = {**dataclasses.asdict(TrainConfig()), "minutes": 5}
LIMITS = {
    "lr": math.inf, "matrix_lr": math.inf, "weight_decay": math.inf, "warmup": math.inf, "clip": math.inf,
    "minutes": math.inf, "floor": 1, "dropout": 0.99, "beta2": 0.9999,
}  # fmt: skip


@dataclass
class Trainer:
    """A run in progress: what `step` needs, and what a checkpoint keeps."""

    config: TrainConfig
    corpus: corpus.Corpus
    tokenizer: Tokenizer
    model: GPT
    world: distributed.World
    device: torch.device
    dtype: torch.dtype
    train_tokens: Tensor
    validation_tokens: Tensor
    step_number: int = 0
    seconds: float = 0.0  # spent on steps, in this process and those it resumes
    train_loss: float | None = None  # of the last step
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        c = self.config
        self.optimizers = build_optimizers(
            self.model, c.optimizer, lr=c.lr, matrix_lr=c.matrix_lr, weight_decay=c.weight_decay,
            betas=(0.9, c.beta2), dtype=self.dtype,
        )  # fmt: skip
        self.sampler = batches.BlockSampler(self.train_tokens, c.context, c.batch, c.seed)
        prefer_fast_attention(self.model, self.device, self.dtype)
        self.forward = compiled(self.model.loss, self.device) if c.compile else self.model.loss

    @property
    def progress(self) -> float:
        """How much of the run is over, by steps or by the clock, whichever is further."""
        by_clock = self.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return min(1.0, max(self.step_number / self.config.steps, by_clock))

    def step(self) -> float:
        """One optimiser step; returns the mean loss of this process's rows.

        Raises:
            LabError: the loss is NaN or infinite; the weights are those of the step before.
        """
        started = time.perf_counter()
        c = self.config
        micro = c.batch // (c.accumulation * self.world.size)
        if c.dropout:  # its masks follow from seed, step and process: no generator to save, on any device
            torch.manual_seed(mask_seed(c.seed, self.step_number, self.world))
        total = 0.0
        for index in range(c.accumulation):
            first = (self.world.rank * c.accumulation + index) * micro
            ids, targets = (part.to(self.device) for part in self.sampler.rows(self.step_number, first, micro))
            with autocast(self.device, self.dtype):
                loss = self.forward(ids, targets) / c.accumulation
            loss.backward()
            total += loss.item()
        distributed.average_gradients(self.model.parameters(), self.world)
        self._update(total)
        self.step_number += 1
        self.seconds = distributed.agree(self.seconds + time.perf_counter() - started, self.world, self.device)
        return total

    def _update(self, loss: float) -> None:
        c = self.config
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), c.clip or math.inf)
        if not math.isfinite(loss) or not torch.isfinite(norm):
            what = "loss" if not math.isfinite(loss) else "gradient"
            raise LabError(
                f"the {what} became NaN or infinite at step {self.step_number} (loss {loss})",
                f"--lr {c.lr / 2:g} --matrix-lr {c.matrix_lr / 2:g}, or --dtype fp32",
            )
        set_rate(
            self.optimizers,
            schedule_factor(self.step_number, self.progress, warmup=c.warmup, kind=c.schedule, floor=c.floor),
        )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def validate(self) -> float:
        """Loss on the whole validation part, nats per token."""
        return evaluate.validation_loss(
            self.model, self.validation_tokens, self.config.context, batch=self.config.batch, dtype=self.dtype
        )

    @property
    def characters_per_token(self) -> float:
        """Of the validation part."""
        return len(self.corpus.validation) / len(self.validation_tokens)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            **checkpoint.model_state(self.model, self.tokenizer, self.corpus.name, self.corpus.sha256),
            "config": {k: v for k, v in dataclasses.asdict(self.config).items() if k != "resume"},
            "optimizer": [optimizer.state_dict() for optimizer in self.optimizers],
            "rng": torch.get_rng_state(),
            "step": self.step_number,
            "seconds": self.seconds,
            "train_loss": self.train_loss,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            LabError: it is of another shape, another corpus, or other optimisers.
        """
        if state["data"]["sha256"] != self.corpus.sha256:
            raise LabError(
                f"{path} was trained on {state['data']['name']}, this is {self.corpus.name}",
                f"--data {state['data']['name']}, or leave out --resume",
            )
        checkpoint.load_weights(self.model, state["model"], path)
        if len(state["optimizer"]) != len(self.optimizers):
            raise LabError(f"{path} was trained by another optimiser", "the --optimizer it was trained with")
        for optimizer, saved in zip(self.optimizers, state["optimizer"], strict=True):
            fresh = [dict(group) for group in optimizer.param_groups]
            optimizer.load_state_dict(saved)
            for group, own in zip(optimizer.param_groups, fresh, strict=True):  # a new --lr holds
                group.update({name: value for name, value in own.items() if name not in ("params", "lr")})
        torch.set_rng_state(state["rng"])
        self.step_number, self.seconds, self.history = state["step"], state["seconds"], state["history"]
        self.train_loss = state.get("train_loss")


def new_trainer(config: TrainConfig, world: distributed.World, device: torch.device) -> Trainer:
    """Load the corpus, build tokenizer and model, and go on from `config.resume` where it is given."""
    check(config, world)
    if config.threads:
        torch.set_num_threads(config.threads)
    if device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(config.seed)
    text = corpus.load_corpus(config.data)
    saved = checkpoint.read_checkpoint(config.resume) if config.resume else None
    if saved:
        tokenizer = tokenizer_from_dict(saved["tokenizer"])
    else:
        # Characters of the whole text: one that occurs only in the validation part still needs an id.
        source = text.text if config.tokenizer == "character" else text.train
        tokenizer = build_tokenizer(config.tokenizer, source, config.vocab_size)
    trainer = Trainer(
        config=config,
        corpus=text,
        tokenizer=tokenizer,
        model=GPT(config.model_config(tokenizer.vocab_size)).to(device),
        world=world,
        device=device,
        dtype=choose_dtype(config.dtype, device),
        train_tokens=corpus.encode_part(tokenizer, text.train, config.context, "training"),
        validation_tokens=corpus.encode_part(tokenizer, text.validation, config.context, "validation"),
    )
    if saved:
        trainer.restore(saved, config.resume)
    return trainer


def check(config: TrainConfig, world: distributed.World) -> None:
    """Sizes that cannot work, before anything is loaded."""
    for name in ("layers", "heads", "width", "context", "batch", "accumulation", "steps", "eval_every"):
        if getattr(config, name) < 1:
            raise LabError(f"--{name.replace('_', '-')} must be at least 1", f"--{name.replace('_', '-')} 1")
    for name, high in LIMITS.items():
        value, option = getattr(config, name), "--" + name.replace("_", "-")
        if value is not None and not 0 <= value <= high:
            raise LabError(f"{option} {value:g} is not between 0 and {high:g}", f"{option} {DEFAULTS[name]:g}")
    parts = config.accumulation * world.size
    if config.batch % parts:
        raise LabError(
            f"batch {config.batch} does not divide into {parts} micro-batches",
            f"--batch {parts * (config.batch // parts + 1)}",
        )


def train(
    config: TrainConfig, folder: Path, on_evaluation: Callable[[Trainer, dict], None] = lambda *_: None,
    on_step: Callable[[Trainer], None] = lambda *_: None,
) -> Trainer:  # fmt: skip
    """Train to the end of the steps or of the time budget.

    Writes `folder/log.jsonl` (one line a validation) and `folder/checkpoint.pt`. Ctrl-C ends the step, saves a
    checkpoint, and goes on as KeyboardInterrupt.
    """
    device = choose_device(config.device)
    with distributed.join_world(device) as world:
        trainer = new_trainer(config, world, device)
        if config.resume:
            save(trainer, folder)
        with hold_interrupts() as interrupted:
            while True:
                over = trainer.progress >= 1.0
                if over or trainer.step_number % config.eval_every == 0:
                    evaluate_and_save(trainer, folder, on_evaluation)
                if over:
                    return trainer
                trainer.train_loss = trainer.step()
                on_step(trainer)
                if interrupted():
                    save(trainer, folder)
                    raise KeyboardInterrupt


@contextlib.contextmanager
def hold_interrupts() -> Iterator[Callable[[], bool]]:
    """Make the first Ctrl-C wait for the end of the step; a second one stops at once.

    A checkpoint of half a step (one optimiser has moved, the other has not; dropout has drawn) could not be resumed
    as if nothing had happened. Yields a function that says whether Ctrl-C was pressed.
    """
    pressed: list[int] = []

    def hold(number: int, frame: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is not signal.default_int_handler:
        yield lambda: False  # a notebook's thread, or a background job that ignores Ctrl-C
        return
    signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, usual)


def save(trainer: Trainer, folder: Path) -> None:
    """Write the checkpoint and the log, both whole or not at all; in the main process only."""
    if trainer.world.is_main:
        checkpoint.save_checkpoint(folder / "checkpoint.pt", trainer.state())
        write_jsonl(folder / "log.jsonl", trainer.history)


def evaluate_and_save(trainer: Trainer, folder: Path, on_evaluation: Callable[[Trainer, dict], None]) -> None:
    """Validate, log, save; in the main process only."""
    if not trainer.world.is_main:
        return
    if trainer.history and trainer.history[-1]["step"] == trainer.step_number:
        return  # resumed exactly at a validation
    loss = trainer.validate()
    row = {
        "step": trainer.step_number,
        "tokens": trainer.step_number * trainer.config.batch * trainer.config.context,
        "seconds": round(trainer.seconds, 3),
        "train_loss": trainer.train_loss,
        "val_loss": loss,
        "val_bits_per_char": evaluate.bits_per_character(loss, trainer.characters_per_token),
    }
    trainer.history.append(row)
    save(trainer, folder)
    on_evaluation(trainer, row)


def mask_seed(seed: int, step: int, world: distributed.World) -> int:
    """The generator's seed for one step's dropout masks: another one for every run, step and process."""
    return (seed * 1_000_003 + step) * world.size + world.rank


def prefer_fast_attention(model: GPT, device: torch.device, dtype: torch.dtype) -> None:
    """Use the explicit form where it is the faster one: bfloat16 on a CPU (measured in NOTES.md)."""
    for block in model.blocks:
        block.attention.explicit = device.type == "cpu" and dtype == torch.bfloat16


def compiled(function: Callable, device: torch.device) -> Callable:
    """torch.compile, or the plain function with a notice where there is no working compiler."""
    fast = torch.compile(function, dynamic=False)
    state = {"function": fast}

    def call(*args):
        if state["function"] is function:
            return function(*args)
        try:
            return fast(*args)
        except Exception as error:  # the compiler's own errors share no base class
            if isinstance(error, LabError):
                raise
            print(f"torch.compile does not work here ({type(error).__name__}); training goes on without it")
            with contextlib.suppress(Exception):
                torch._dynamo.reset()
            state["function"] = function
            return function(*args)

    return call
