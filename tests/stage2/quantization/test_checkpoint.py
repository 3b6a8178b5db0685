"""Each test names the bug that it catches."""

import json

import pytest
import torch

from labkit.errors import LabError
from stage2_rag_finetune_deploy.quantization.checkpoint import (
    bytes_on_disk,
    nf4_tensors,
    read_tensors,
    write_checkpoint,
)
from stage2_rag_finetune_deploy.quantization.grid import Scheme
from stage2_rag_finetune_deploy.quantization.methods import Settings, quantise_model
from stage2_rag_finetune_deploy.quantization.runtime import kernel_name, load_dense, load_packed, resident_bytes

CASES = {
    "rtn": Settings(Scheme(4, 32)),
    "gptq": Settings(Scheme(3, 32), order="act"),
    "awq": Settings(Scheme(4, 64), ratios=3),
    "nf4": Settings(),
}


@pytest.fixture(scope="module")
def written(tiny_base, ids, tmp_path_factory):
    """method -> (folder, the simulated model)."""
    found = {}
    for method, settings in CASES.items():
        model, _ = load_dense(tiny_base, "cpu", "bf16")
        layers = quantise_model(model, method, settings, ids)
        folder = tmp_path_factory.mktemp("written") / method
        found[method] = write_checkpoint(folder, tiny_base, model, layers, method, settings), model
    return found


@pytest.mark.parametrize("method", CASES)
@torch.inference_mode()
def test_what_is_read_is_what_was_simulated(written, ids, method):
    """Catches: anything lost between the codes and the file: AWQ's norms, an order, a scale, a tied head."""
    folder, model = written[method]
    dense, tokenizer = load_dense(folder, "cpu", "bf16")
    assert torch.equal(dense(ids).logits, model(ids).logits)
    assert tokenizer.chat_template
    assert not list(folder.parent.glob(".tmp*"))


@pytest.mark.parametrize("method", CASES)
@torch.inference_mode()
def test_packed_is_nearly_dense(written, ids, method):
    """Catches: kernels given the wrong layer; a packed model that is as large as before.

    Kernels add up in another order, and their scales are bfloat16.
    """
    folder, _ = written[method]
    packed, _ = load_packed(folder, "bf16")
    dense, _ = load_dense(folder, "cpu", "bf16")
    wanted = dense(ids[:1]).logits.float()
    assert (packed(ids[:1]).logits.float() - wanted).norm() / wanted.norm() < 0.1
    assert resident_bytes(packed) < 0.7 * resident_bytes(dense)
    assert kernel_name(packed) and kernel_name(packed) != kernel_name(dense)


def test_config_says_what_vllm_wants(written):
    """Catches: a checkpoint that vLLM takes for a plain one, or whose zeros it reads as asymmetric."""
    config = json.loads((written["rtn"][0] / "config.json").read_text())["quantization_config"]
    assert config | {"meta": None} == {
        "quant_method": "gptq", "checkpoint_format": "gptq", "bits": 4, "group_size": 32, "sym": True,
        "desc_act": False, "lm_head": False, "meta": None,
    }  # fmt: skip
    assert json.loads((written["gptq"][0] / "config.json").read_text())["quantization_config"]["desc_act"]
    tensors = read_tensors(written["rtn"][0])
    assert "lm_head.weight" not in tensors and "model.layers.0.mlp.up_proj.weight" not in tensors
    assert tensors["model.layers.0.mlp.up_proj.g_idx"].dtype == torch.int32


def test_nf4_file_is_bitsandbytes(written, build):
    """Catches: a key, a shape or a byte in which bitsandbytes writes another file."""
    import bitsandbytes

    weight = build(0, torch.bfloat16).model.layers[0].mlp.up_proj.weight
    layer = bitsandbytes.nn.Linear4bit(64, 128, bias=False, quant_type="nf4")
    layer.weight = bitsandbytes.nn.Params4bit(weight.data, requires_grad=False, quant_type="nf4")
    theirs = layer.to("cpu").state_dict()
    tensors = read_tensors(written["nf4"][0])
    ours = {name.removeprefix("model.layers.0.mlp.up_proj."): value for name, value in tensors.items()
            if name.startswith("model.layers.0.mlp.up_proj.")}  # fmt: skip
    assert set(ours) == set(theirs)
    for name in set(ours) - {"weight.quant_state.bitsandbytes__nf4"}:
        assert torch.equal(ours[name], theirs[name].cpu()), name
    facts = [json.loads(bytes(each["weight.quant_state.bitsandbytes__nf4"].tolist())) for each in (ours, theirs)]
    assert facts[0] | {"nested_offset": 0} == facts[1] | {"nested_offset": 0}
    assert facts[0]["nested_offset"] == pytest.approx(facts[1]["nested_offset"], rel=1e-6)


def test_nf4_without_double_quantisation(build):
    """Catches: float32 absmax written as codes."""
    from stage2_rag_finetune_deploy.finetune.nf4 import quantise_nf4

    tensors = nf4_tensors(quantise_nf4(build(0).model.layers[0].mlp.up_proj.weight, double=False))
    assert tensors["weight.absmax"].dtype == torch.float32 and "weight.nested_absmax" not in tensors


def copy_of(folder, tmp_path):
    import shutil

    return shutil.copytree(folder, tmp_path / "copy")


def test_a_file_that_was_cut_off(written, tmp_path):
    """Catches: a traceback of safetensors, or a model that answers with half of its weights."""
    folder = copy_of(written["rtn"][0], tmp_path)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    for load in (load_dense, load_packed):
        with pytest.raises(LabError, match="cut off or no safetensors"):
            load(folder)


def test_folders_that_are_not_whole(written, tmp_path):
    """Catches: a missing shard, a missing config, missing tensors, another method: each a line of its own."""
    folder = copy_of(written["rtn"][0], tmp_path)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00002-of-00002.safetensors"}}))
    with pytest.raises(LabError, match="model-00002-of-00002.safetensors is missing"):
        bytes_on_disk(folder)
    index.unlink()
    from safetensors.torch import save_file

    tensors = read_tensors(folder)
    tensors.pop("model.norm.weight")
    save_file({name: value.clone() for name, value in tensors.items()}, folder / "model.safetensors")
    with pytest.raises(LabError, match="model.norm.weight is missing"):
        load_dense(folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["quant_method"] = "awq"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(LabError, match="quantised as awq"):
        load_dense(folder)
    (folder / "config.json").unlink()
    with pytest.raises(LabError, match="config.json is missing"):
        load_packed(folder)


def test_nothing_else_is_overwritten(tiny_base, build, tmp_path):
    """Catches: --out pointing at a folder of somebody's photographs."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    model = build(0)
    with pytest.raises(LabError, match="is no checkpoint"):
        write_checkpoint(tmp_path / "photos", tiny_base, model, {}, "rtn", Settings())
    assert (tmp_path / "photos" / "a.jpg").exists()
