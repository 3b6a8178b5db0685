"""The code of this lab behind the interface."""

from labkit.timing import Timer
from stage2_rag_finetune_deploy.finetune.base_model import load_placed
from stage2_rag_finetune_deploy.quantization import methods
from stage2_rag_finetune_deploy.quantization.checkpoint import check_whole, write_checkpoint
from stage2_rag_finetune_deploy.quantization.libraries.interface import Task

METHODS = methods.METHODS


def quantise(task: Task) -> float:
    """See `interface.Quantiser`."""
    check_whole(task.source)
    model, _ = load_placed(task.source, task.device)
    with Timer() as timer:
        layers = methods.quantise_model(model, task.method, task.settings, task.ids)
    write_checkpoint(task.out, task.source, model, layers, task.method, task.settings)
    return timer.seconds
