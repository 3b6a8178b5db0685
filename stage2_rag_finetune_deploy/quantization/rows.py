"""The rows of the trade-off table: quantised, written, read back from the disk, measured."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from data.customer_service.prompt import prompt_messages
from data.understanding import Utterance
from labkit.errors import LabError
from labkit.progress import progress
from stage2_rag_finetune_deploy.finetune.generation import generate
from stage2_rag_finetune_deploy.finetune.understanding import score
from stage2_rag_finetune_deploy.quantization.checkpoint import bytes_on_disk
from stage2_rag_finetune_deploy.quantization.grid import Scheme
from stage2_rag_finetune_deploy.quantization.libraries.interface import Task, quantiser
from stage2_rag_finetune_deploy.quantization.methods import WITH_DATA, Settings
from stage2_rag_finetune_deploy.quantization.perplexity import block_losses
from stage2_rag_finetune_deploy.quantization.resident_memory import resident_memory
from stage2_rag_finetune_deploy.quantization.runtime import kernel_name, load_dense, load_packed, resident_bytes
from stage2_rag_finetune_deploy.quantization.speed import decode_rate, prefill_rate

FULL = "BF16"


@dataclass(frozen=True)
class Row:
    """One way to keep the model.

    Attributes:
        name: in the table, "GPTQ 4".
        method: a word of METHODS; None is the model as it is.
        scheme: bits and groups.
        library: whose code.
    """

    name: str
    method: str | None
    scheme: Scheme = Scheme()
    library: str = "by-hand"


def make_rows(group: int, bits: str, gptqmodel: bool = False) -> list[Row]:
    """BF16; RTN, GPTQ, AWQ at each number of bits; NF4; INT8 (round to nearest, one scale a row).

    Args:
        bits: with commas.
        gptqmodel: add GPTQModel's row beside each of GPTQ's.
    """
    words = [word.strip() for word in bits.split(",") if word.strip()]
    if not all(word in ("2", "3", "4") for word in words) or "4" not in words:
        raise LabError(f"--bits {bits!r} is no list of 2, 3 and 4 with 4 in it", "--bits 4,3")
    rows = [Row(FULL, None)]
    for number in map(int, words):
        rows += [Row(f"{method.upper()} {number}", method, Scheme(number, group)) for method in ("rtn", "gptq", "awq")]
        if gptqmodel:
            rows.append(Row(f"GPTQModel {number}", "gptq", Scheme(number, group), "gptqmodel"))
    return [*rows, Row("NF4", "nf4"), Row("INT8", "rtn", Scheme(8, -1))]


@dataclass(frozen=True)
class Exam:
    """What every row is asked.

    Attributes:
        calibration: (sequences, length) ids, for the methods that want them.
        test: (blocks, length) ids of WikiText-2's test part.
        utterances: of the customer-service task; empty leaves it out.
        new_tokens: longest reply to one.
        ratios: that AWQ tries.
    """

    calibration: Tensor
    test: Tensor
    utterances: Sequence[Utterance]
    new_tokens: int
    ratios: int


@dataclass
class Measured:
    """The figures of a row."""

    row: Row
    folder: Path
    losses: np.ndarray  # nats, one a block
    exact: tuple[bool, ...]  # one an utterance; empty where the task was not asked
    seconds: float  # to quantise
    disk: int  # bytes
    resident: int = 0  # bytes
    kernel: str = ""
    prefill: list[float] = field(default_factory=list)  # tokens/s, one a round
    decode: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For table.json."""
        return {
            "row": self.row.name, "library": self.row.library, "kernel": self.kernel, "disk": self.disk,
            "resident": self.resident, "seconds": self.seconds, "losses": self.losses.tolist(),
            "exact": list(self.exact), "prefill": self.prefill, "decode": self.decode,
        }  # fmt: skip


def measure(row: Row, source: Path, folder: Path, exam: Exam) -> Measured:
    """Quantise into `folder` and measure the quality of what lies there.

    Quality is measured on the values of the checkpoint, multiplied out: no kernel's rounding is in it.
    """
    seconds = 0.0
    if row.method is None:
        folder = source
    else:
        ids = exam.calibration if row.method in WITH_DATA else None
        settings = Settings(row.scheme, ratios=exam.ratios)
        seconds = quantiser(row.library, row.method).quantise(Task(source, folder, row.method, settings, ids, "cpu"))
    model, tokenizer = load_dense(folder, "cpu")
    losses, exact = block_losses(model, exam.test), ()
    if exam.utterances:
        prompts = [prompt_messages(each.text, each.language) for each in exam.utterances]
        exact = score(exam.utterances, generate(model, tokenizer, prompts, exam.new_tokens, batch=40)).exact
    return Measured(row, folder, losses, exact, seconds, bytes_on_disk(folder))


def time_rows(results: Sequence[Measured], ids: Tensor, rounds: int, tokens: int, processes: bool = True) -> None:
    """Fill in kernel, resident memory and speed. In every round all rows take turns, so a slow minute hits them all.

    Memory is measured once for rows whose tensors have the same sizes.

    Args:
        ids: the prompt. (1, T).
        tokens: to decode.
        processes: measure memory in processes of their own; otherwise the bytes of the weights are counted.
    """
    sizes: dict[tuple[str, int], int] = {}
    models = []
    for measured in progress(results, description="memory"):
        models.append(load_packed(measured.folder)[0])
        measured.kernel = kernel_name(models[-1])
        kind = (measured.kernel, measured.disk)
        if kind not in sizes:
            sizes[kind] = resident_memory(measured.folder) if processes else resident_bytes(models[-1])
        measured.resident = sizes[kind]
        decode_rate(models[-1], ids, tokens=1), prefill_rate(models[-1], ids)  # warm up
    for _ in progress(range(rounds), description="speed"):
        for measured, model in zip(results, models, strict=True):
            measured.prefill.append(prefill_rate(model, ids))
            measured.decode.append(decode_rate(model, ids, tokens))
