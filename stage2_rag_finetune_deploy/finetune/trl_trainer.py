"""The library path: TRL's SFTTrainer over PEFT's LoRA, on the same samples.

TRL gets ids and labels as `chat_format.encode` made them, so both trainers learn the same tokens. From plain messages
TRL would also learn the line break that the template writes after the end of a turn.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune.samples import Samples
from stage2_rag_finetune_deploy.finetune.sft_config import TARGETS, SftConfig
from stage2_rag_finetune_deploy.finetune.training import Progress, check_finite

NOTHING = {"seen": 0.0, "seconds": 0.0}


def as_dataset(samples: Samples) -> Any:
    """Columns input_ids and labels."""
    from datasets import Dataset

    return Dataset.from_list([{"input_ids": row.ids, "labels": row.labels} for row in samples.rows])


def make_trainer(
    model: Any, tokenizer: Any, train: Samples, validation: Samples, config: SftConfig, folder: Path,
    dtype: torch.dtype, on_log: Callable[[int, float], None] = lambda *_: None,
) -> Any:  # fmt: skip
    """An SFTTrainer that is ready to go.

    Args:
        model: the base, without an adapter; PEFT puts one in.
        folder: for TRL's checkpoints.
        dtype: bfloat16 turns mixed precision on.
        on_log: called with step and loss.
    """
    import datasets
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()

    class Follow(TrainerCallback):
        """Pass the loss on, stop where it is no number, and note tokens and seconds where checkpoints keep them."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.before = next((log for log in reversed(state.log_history) if "seconds" in log), NOTHING)
            self.tokens, self.started = 0.0, time.perf_counter()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
            self.tokens = logs.get("num_tokens", self.tokens)  # TRL's own count, from 0 on in a resumed run
            state.log_history[-1] |= {
                "seen": self.before["seen"] + self.tokens,
                "seconds": self.before["seconds"] + time.perf_counter() - self.started,
            }
            if "loss" in logs:
                check_finite(logs["loss"], float(logs.get("grad_norm", 0.0)), state.global_step)
                on_log(state.global_step, logs["loss"])

    settings = SFTConfig(
        output_dir=str(folder), max_steps=config.steps, per_device_train_batch_size=config.batch,
        per_device_eval_batch_size=16, learning_rate=config.lr, lr_scheduler_type="linear", warmup_steps=config.warmup,
        adam_beta2=0.99, weight_decay=0.0, max_grad_norm=1.0, max_length=config.max_length, packing=config.packing,
        eval_packing=False, eval_strategy="steps", eval_steps=config.eval_every, save_strategy="steps",
        save_steps=config.eval_every, save_total_limit=1, logging_steps=1, report_to="none", seed=config.seed,
        data_seed=config.seed, bf16=dtype == torch.bfloat16, use_cpu=model.device.type == "cpu", disable_tqdm=True,
        gradient_checkpointing=model.device.type != "cpu", dataloader_num_workers=0, dataloader_pin_memory=False,
        log_level="error", logging_nan_inf_filter=False,
    )  # fmt: skip
    adapter = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, task_type="CAUSAL_LM",
        target_modules=list(TARGETS[config.targets]),
    )  # fmt: skip
    torch.manual_seed(config.seed)
    trainer = SFTTrainer(
        model, args=settings, train_dataset=as_dataset(train), eval_dataset=as_dataset(validation),
        processing_class=tokenizer, peft_config=adapter, callbacks=[Follow()],
    )  # fmt: skip
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)  # every log line as a dictionary
    return trainer


def last_checkpoint(folder: Path) -> str:
    """TRL's newest whole checkpoint in a run's folder. The trainer's state is written last: a killed run may lack it.

    Raises:
        LabError: there is none.
    """
    whole = [state.parent for state in folder.glob("checkpoint-*/trainer_state.json") if is_json(state)]
    if not whole:
        raise LabError(f"no checkpoint in {folder}", "the same command without --resume")
    return str(max(whole, key=lambda found: int(found.name.removeprefix("checkpoint-"))))


def is_json(path: Path) -> bool:
    """Whether a file was written to its end."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        return False


def progress_of(trainer: Any) -> Progress:
    """TRL's log as the other trainer's history; its seconds include evaluating."""
    logs, history = trainer.state.log_history, []
    for entry in logs:
        if "eval_loss" in entry:
            done = entry["step"]
            since = history[-1]["step"] if history else 0
            losses = [log["loss"] for log in logs if "loss" in log and since < log["step"] <= done]
            history.append({
                "step": done, "train_loss": sum(losses) / max(1, len(losses)), "val_loss": entry["eval_loss"],
                "tokens": int(entry["seen"]), "seconds": round(entry["seconds"], 2),
            })  # fmt: skip
    return Progress(trainer.state.global_step, int(logs[-1]["seen"]), logs[-1]["seconds"], history)
