"""LoRA by hand against PEFT. Each test names the bug that it catches."""

import copy
import json

import pytest
import torch

from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune import lora

IDS = torch.tensor([[5, 9, 77, 30, 4, 12], [8, 8, 101, 3, 60, 2]])


@pytest.fixture
def adapted(build):
    """A model with an adapter whose B is not zero."""
    model = lora.inject(build(0), rank=4, alpha=12)
    with torch.no_grad():
        for layer in lora.lora_layers(model).values():
            layer.lora_B.normal_(std=0.1)
    return model


def peft_twin(base, adapted, targets=lora.ALL_LINEAR):
    """PEFT's model with the same base and the same A and B."""
    from peft import LoraConfig, get_peft_model

    twin = get_peft_model(base, LoraConfig(r=4, lora_alpha=12, target_modules=list(targets), lora_dropout=0.0))
    state = dict(twin.named_parameters())
    with torch.no_grad():
        for name, value in lora.adapter_state(adapted).items():
            state[name.replace(".weight", ".default.weight")].copy_(value)
    return twin.eval()


def test_the_output_is_pefts(build, adapted):
    """Catches: A and B in the wrong order, alpha not divided by the rank, a layer left out."""
    twin = peft_twin(build(0), adapted)
    torch.testing.assert_close(adapted(IDS).logits, twin(IDS).logits, rtol=1e-4, atol=1e-5)  # two orders of summing


def test_gradients_are_pefts(build, adapted):
    """Catches: a detour that is detached, scaling that is applied to the output but not to the gradient."""
    twin = peft_twin(build(0), adapted)
    adapted(IDS, labels=IDS).loss.backward()
    twin(IDS, labels=IDS).loss.backward()
    theirs = dict(twin.named_parameters())
    for name, layer in lora.lora_layers(adapted).items():
        for part in ("lora_A", "lora_B"):
            expected = theirs[f"{lora.PREFIX}{name}.{part}.default.weight"].grad
            torch.testing.assert_close(getattr(layer, part).grad, expected, rtol=1e-3, atol=1e-6)


def test_nothing_changes_at_first(build):
    """Catches: B that does not start at zero."""
    plain = build(0)
    torch.testing.assert_close(lora.inject(copy.deepcopy(plain))(IDS).logits, plain(IDS).logits, rtol=0, atol=0)


def test_only_the_adapter_trains(build):
    """Catches: norms or the embedding left trainable; an optimiser step that moves the base."""
    model = lora.inject(build(0), rank=4, alpha=8)
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainable = {name for name, value in model.named_parameters() if value.requires_grad}
    assert len(trainable) == 2 * 7 * 2 and all("lora_" in name for name in trainable)
    assert {id(value) for value in lora.lora_parameters(model)} == {
        id(value) for name, value in model.named_parameters() if name in trainable
    }
    optimizer = torch.optim.AdamW(lora.lora_parameters(model), lr=0.1, weight_decay=0.1)
    for _ in range(2):  # in the first step only B moves: its zeros hide A
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == trainable


def test_merged_logits_are_the_adapters(adapted):
    """Catches: a merge with another scale, or a detour that is added twice after merging."""
    expected = adapted(IDS).logits
    lora.merge(adapted)
    torch.testing.assert_close(adapted(IDS).logits, expected, rtol=1e-4, atol=1e-4)  # one product in place of three
    lora.merge(adapted)  # a second merge adds nothing
    torch.testing.assert_close(adapted(IDS).logits, expected, rtol=1e-4, atol=1e-4)
    names = {name for name, _ in lora.unload(adapted).named_parameters()}
    assert not any("lora" in name or "base" in name for name in names)
    torch.testing.assert_close(adapted(IDS).logits, expected, rtol=1e-4, atol=1e-4)


def test_delta_is_pefts(build, adapted):
    """Catches: a delta that is transposed or not scaled."""
    twin = peft_twin(build(0), adapted)
    layers = dict(twin.named_modules())
    for name, layer in lora.lora_layers(adapted).items():
        expected = layers[f"{lora.PREFIX}{name}"].get_delta_weight("default")
        torch.testing.assert_close(layer.delta(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unmerge_restores_every_bit(build, dtype):
    """Catches: W + D - D, which in bfloat16 loses most digits of W."""
    model = lora.inject(build(0, dtype=dtype), rank=4, alpha=8)
    for layer in lora.lora_layers(model).values():
        torch.nn.init.normal_(layer.lora_B)
    before = {name: layer.base.weight.clone() for name, layer in lora.lora_layers(model).items()}
    lora.merge(model)
    assert not any(torch.equal(layer.base.weight, before[name]) for name, layer in lora.lora_layers(model).items())
    lora.unmerge(model)
    assert all(torch.equal(layer.base.weight, before[name]) for name, layer in lora.lora_layers(model).items())


def test_disabled_is_the_base_and_only_inside(build, adapted):
    """Catches: a reference model with the adapter in it; an adapter that stays off after an error."""
    expected, base = adapted(IDS).logits, build(0)(IDS).logits
    with pytest.raises(ZeroDivisionError), lora.disabled(adapted):
        torch.testing.assert_close(adapted(IDS).logits, base, rtol=0, atol=0)
        1 / 0  # noqa: B018
    assert torch.equal(adapted(IDS).logits, expected)


def test_peft_reads_what_is_saved(tiny_base, build, adapted, tmp_path):
    """Catches: names, shapes or a config that PEFT (and with it TRL and vLLM) does not know."""
    from peft import PeftModel

    folder = lora.save_adapter(adapted, tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(build(0), folder).eval()
    torch.testing.assert_close(theirs(IDS).logits, adapted(IDS).logits, rtol=1e-4, atol=1e-5)


def test_what_peft_saved_is_read(build, adapted, tmp_path):
    """Catches: an adapter trained by TRL that this lab cannot load."""
    peft_twin(build(0), adapted).save_pretrained(tmp_path / "adapter")
    mine = lora.load_adapter(build(0), tmp_path / "adapter")
    torch.testing.assert_close(mine(IDS).logits, adapted(IDS).logits, rtol=1e-4, atol=1e-5)


def test_saved_and_loaded_is_the_same(build, adapted, tmp_path):
    """Catches: an alpha or a rank that is not saved; loading into a model that has an adapter already."""
    lora.save_adapter(adapted, tmp_path)
    loaded = lora.load_adapter(build(0), tmp_path)
    assert torch.equal(loaded(IDS).logits, adapted(IDS).logits)
    other = lora.inject(build(0), rank=4, alpha=12)
    assert torch.equal(lora.load_adapter(other, tmp_path)(IDS).logits, adapted(IDS).logits)


def test_an_adapter_for_another_base_is_refused(build, adapted, tmp_path):
    """Catches: an adapter on top of weights that it was not trained on: shapes fit, answers are nonsense."""
    lora.save_adapter(adapted, tmp_path)
    with pytest.raises(LabError, match="another base"):
        lora.load_adapter(build(1), tmp_path)
    with pytest.raises(LabError, match="another base"):
        lora.load_adapter(build(0, width=64), tmp_path)
    assert lora.fingerprint(build(0)) == lora.fingerprint(build(0, dtype=torch.bfloat16)) == lora.fingerprint(adapted)
    lora.merge(adapted)
    assert lora.fingerprint(adapted) == lora.fingerprint(build(0))
    assert lora.fingerprint(lora.unload(adapted)) != lora.fingerprint(build(0))


def test_a_broken_adapter_is_one_line(build, tmp_path):
    """Catches: a traceback for an empty folder, half a file, or an adapter of another shape."""
    with pytest.raises(LabError, match="no adapter in"):
        lora.load_adapter(build(0), tmp_path)
    folder = lora.save_adapter(lora.inject(build(0), rank=4), tmp_path / "a")
    config = json.loads((folder / lora.CONFIG).read_text())
    (folder / lora.CONFIG).write_text(json.dumps(config | {"r": 2}))
    with pytest.raises(LabError, match="does not fit"):
        lora.load_adapter(build(0), folder)
    whole = (folder / lora.WEIGHTS).read_bytes()
    (folder / lora.WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LabError, match="no adapter in"):
        lora.load_adapter(build(0), folder)


def test_what_cannot_be_injected(build):
    """Catches: a mistyped target that trains nothing; two adapters in one another."""
    with pytest.raises(LabError, match="no linear layer"):
        lora.inject(build(0), targets=["q_prj"])
    with pytest.raises(LabError, match="rank"):
        lora.inject(build(0), rank=0)
    with pytest.raises(LabError, match="already"):
        lora.inject(lora.inject(build(0)))
    only = lora.inject(build(0), targets=lora.ATTENTION)
    assert {name.rpartition(".")[2] for name in lora.lora_layers(only)} == set(lora.ATTENTION)
