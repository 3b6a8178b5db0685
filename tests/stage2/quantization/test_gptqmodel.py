"""GPTQModel behind the interface, for real: where `make setup-serve` has been run."""

from pathlib import Path

import pytest
import torch

from labkit.side_environment import SERVE
from stage2_rag_finetune_deploy.quantization.grid import Scheme
from stage2_rag_finetune_deploy.quantization.libraries.interface import Task, quantiser
from stage2_rag_finetune_deploy.quantization.methods import Settings
from stage2_rag_finetune_deploy.quantization.perplexity import block_losses
from stage2_rag_finetune_deploy.quantization.runtime import load_dense

pytestmark = pytest.mark.skipif(not SERVE.ready(), reason=".venv-serve is not there: make setup-serve")
SCHEME = Scheme(4, 32)


@pytest.fixture(scope="module")
def folders(tiny_base, ids, tmp_path_factory) -> dict[str, Path]:
    """The small model, quantised on the same ids by this lab's code (GPTQ, RTN) and by GPTQModel."""
    made = {"none": tiny_base}
    for name, method in (("gptqmodel", "gptq"), ("by-hand", "gptq"), ("rtn", "rtn")):
        made[name] = tmp_path_factory.mktemp("quantised") / name
        library = "by-hand" if name == "rtn" else name
        task = Task(tiny_base, made[name], method, Settings(SCHEME), ids if method == "gptq" else None, "cpu")
        assert quantiser(library, method).quantise(task) > 0
    return made


@pytest.fixture(scope="module")
def models(folders) -> dict[str, torch.nn.Module]:
    """All of them, read back and multiplied out."""
    return {name: load_dense(folder, "cpu", "fp32")[0] for name, folder in folders.items()}


def test_what_gptqmodel_wrote_is_read_here(models):
    """Catches: a format that only its writer reads; weights that are not those of the model."""
    weights = {name: model.model.layers[1].mlp.down_proj.weight for name, model in models.items()}
    scale = weights["none"].abs().mean()
    for name in ("gptqmodel", "by-hand", "rtn"):
        assert 0 < (weights[name] - weights["none"]).abs().mean() < 0.3 * scale, name


def test_ours_changes_the_outputs_no_more_than_theirs(models, ids):
    """Catches: GPTQ by hand that falls behind the library's; a library that rounded to nearest and said GPTQ."""
    logits = {name: model(ids).logits for name, model in models.items()}
    error = {name: (each - logits["none"]).square().mean().item() for name, each in logits.items()}
    assert error["gptqmodel"] < error["rtn"] and error["by-hand"] < error["rtn"]
    assert error["by-hand"] < 1.3 * error["gptqmodel"]
    losses = {name: block_losses(model, ids).mean() for name, model in models.items()}
    assert abs(losses["by-hand"] / losses["gptqmodel"] - 1) < 0.02


def test_the_checkpoint_says_what_it_is(folders, models):
    """Catches: a folder that vLLM would serve as something else."""
    from transformers import AutoConfig

    said = AutoConfig.from_pretrained(folders["gptqmodel"]).quantization_config
    assert (said["quant_method"], said["bits"], said["group_size"], said["sym"]) == ("gptq", 4, 32, True)
    assert torch.isfinite(models["gptqmodel"].lm_head.weight).all()
