"""Each test names the bug that it catches. bitsandbytes' Linear4bit under PEFT is the reference."""

import copy
import json
import logging

import pytest
import torch
from torch import nn

from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune import base_model, nf4, qlora

logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # wants a kernel from the hub
bitsandbytes = pytest.importorskip("bitsandbytes")

RANK, ALPHA, IN, OUT = 8, 16, 576, 192


@pytest.fixture(scope="module")
def dense():
    torch.manual_seed(0)
    return nn.Linear(IN, OUT, bias=False)


@pytest.fixture
def layer(dense):
    made = qlora.QLoRALinear(qlora.NF4Linear(dense), RANK, ALPHA, torch.Generator().manual_seed(1))
    nn.init.normal_(made.lora_B, std=0.02)  # a detour that counts
    return made


@pytest.fixture
def tiny():
    """A Llama of two layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, vocab_size=96, tie_word_embeddings=True)  # fmt: skip
    return LlamaForCausalLM(config)


def peft_layer(dense, layer, dtype):
    """PEFT's LoRA on bitsandbytes' Linear4bit, with the same weights and the same A and B."""
    from peft import LoraConfig, inject_adapter_in_model

    model = nn.Sequential(bitsandbytes.nn.Linear4bit(IN, OUT, bias=False, compute_dtype=dtype, quant_type="nf4"))
    model[0].load_state_dict(dense.state_dict())
    model.to("cpu")  # this is what quantises
    model.is_loaded_in_4bit = True  # as from_pretrained sets it; PEFT chooses its class by it
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["0"]), model)
    model[0].lora_A.float(), model[0].lora_B.float()  # as get_peft_model would have them
    with torch.no_grad():
        model[0].lora_A["default"].weight.copy_(layer.lora_A)
        model[0].lora_B["default"].weight.copy_(layer.lora_B)
    assert type(model[0]).__name__ == "Linear4bit" and "peft" in type(model[0]).__module__
    return model.train()


def close(ours, theirs, tolerance):
    """Within `tolerance` of the largest value."""
    assert ours.dtype == theirs.dtype
    difference = (ours.float() - theirs.float()).abs().max().item()
    assert difference <= tolerance * theirs.abs().max().item(), difference


# float32: the same products in the same precision, but sums of 576 terms may run in another order: some float32 steps.
# bfloat16: two results are added that were each rounded to eight bits: two bfloat16 steps, 2^-8 each.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.bfloat16, 2**-7)])
def test_equals_bitsandbytes_under_peft(dense, layer, dtype, tolerance):
    """Catches: the scale forgotten or applied twice, A and B exchanged, a gradient that goes round the base layer."""
    reference = peft_layer(dense, layer, dtype)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4, 7, IN, generator=generator).to(dtype)
    towards = torch.randn(4, 7, OUT, generator=generator).to(dtype)
    ours_x, theirs_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours, theirs = layer(ours_x), reference(theirs_x)
    close(ours, theirs, tolerance)
    (ours * towards).sum().backward()
    (theirs * towards).sum().backward()
    close(ours_x.grad, theirs_x.grad, tolerance)
    close(layer.lora_A.grad, reference[0].lora_A["default"].weight.grad, tolerance)
    close(layer.lora_B.grad, reference[0].lora_B["default"].weight.grad, tolerance)


def test_base_equals_the_product_with_unpacked_weights(dense):
    """Catches: weights transposed in the product, bias forgotten."""
    biased = nn.Linear(IN, OUT)
    base = qlora.NF4Linear(biased, double=False)
    x = torch.randn(3, IN)
    expected = x @ nf4.dequantise_nf4(base.stored).T + biased.bias
    torch.testing.assert_close(base(x), expected, atol=1e-5, rtol=1e-5)


def test_gradient_of_the_input_by_autograd(dense):
    """Catches: W instead of its transpose in the backward pass, a gradient for nobody."""
    base = qlora.NF4Linear(dense)
    x = torch.randn(3, IN, requires_grad=True)
    base(x).square().sum().backward()
    plain = x.detach().clone().requires_grad_()
    (plain @ nf4.dequantise_nf4(base.stored).T).square().sum().backward()
    torch.testing.assert_close(x.grad, plain.grad, atol=1e-5, rtol=1e-5)
    base(x.detach())  # nobody wants a gradient: no graph
    assert base(x.detach()).grad_fn is None


def test_only_the_detour_trains(layer):
    """Catches: a base layer that moves, parameters that an optimiser would keep states for."""
    before = layer.base.stored.packed.clone()
    assert {name for name, value in layer.named_parameters() if value.requires_grad} == {"lora_A", "lora_B"}
    optimiser = torch.optim.AdamW([value for value in layer.parameters() if value.requires_grad], lr=0.1)
    first = layer(torch.ones(2, IN))
    first.square().mean().backward()
    optimiser.step()
    assert torch.equal(layer.base.stored.packed, before)
    assert not torch.equal(layer(torch.ones(2, IN)), first)


def test_starts_as_its_base(dense):
    """Catches: B that does not start at zero."""
    layer = qlora.QLoRALinear(qlora.NF4Linear(dense), RANK, ALPHA)
    x = torch.randn(2, IN)
    assert torch.equal(layer(x), layer.base(x))
    assert layer.lora_A.abs().max() <= IN**-0.5 and layer.lora_A.std() > 0.5 * IN**-0.5


def test_casting_the_model_leaves_absmax_alone(dense):
    """Catches: model.to(bfloat16), which would round the scales of all blocks."""
    base = qlora.NF4Linear(dense, double=False)
    before = base.stored.absmax.clone()
    nn.Sequential(base).to(torch.bfloat16)
    assert base.stored.absmax.dtype == torch.float32 and torch.equal(base.stored.absmax, before)
    nn.Sequential(base).to("meta")
    assert base.stored.packed.device.type == "meta" == base.stored.absmax.device.type


def test_model_computes_with_quantised_weights_and_trains(tiny):
    """Catches: a layer left out, the head quantised, trained parameters that are not in the list."""
    plain = copy.deepcopy(tiny)
    with torch.no_grad():
        for name, module in plain.named_modules():
            if name.split(".")[-1] in qlora.ALL_LINEAR:
                module.weight.copy_(nf4.dequantise_nf4(nf4.quantise_nf4(module.weight)))
    trained = qlora.make_qlora(tiny, rank=4)
    assert len(trained) == 2 * 7 * 2
    assert {id(value) for value in trained} == {id(value) for value in tiny.parameters() if value.requires_grad}
    ids = torch.arange(40).view(2, 20)
    torch.testing.assert_close(tiny(ids).logits, plain(ids).logits, atol=1e-5, rtol=1e-4)
    optimiser = torch.optim.AdamW(trained, lr=1e-2)
    losses = []
    for _ in range(8):
        loss = tiny(ids, labels=ids).loss
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0] - 0.2


@pytest.mark.parametrize("double", [False, True])
def test_bytes_are_those_of_the_formula_and_of_bitsandbytes(tiny, double):
    """Catches: unpacked weights kept beside the packed ones, tied weights counted twice, a formula for other blocks."""
    linears = {name: module for name, module in tiny.named_modules()
               if name.split(".")[-1] in qlora.ALL_LINEAR}  # fmt: skip
    inside = sum(module.weight.numel() for module in linears.values())
    everything = sum(value.numel() for value in tiny.parameters())
    buffers = sum(value.nbytes for value in tiny.buffers())
    theirs = 0
    for module in linears.values():
        options = {"compress_statistics": double, "quant_type": "nf4"}
        quantised = bitsandbytes.nn.Params4bit(module.weight.data, **options).to("cpu")
        state = quantised.quant_state
        theirs += quantised.nbytes + state.absmax.nbytes + (state.state2.absmax.nbytes + 4 if double else 0)
    adapters = sum(value.nbytes for value in qlora.make_qlora(tiny, rank=4, double=double))
    ours = qlora.weight_bytes(tiny) - adapters - buffers
    assert ours == theirs + 4 * (everything - inside)
    expected = qlora.expected_bytes(inside, everything - inside, "nf4-double" if double else "nf4")
    remainder = 8 * len(linears)  # a block of statistics that is not full, and the offset
    assert abs(ours - 2 * (everything - inside) - expected) <= remainder


def test_names_that_no_layer_has(tiny):
    """Catches: a training run without a single trained weight."""
    with pytest.raises(LabError, match="no linear layer is called c_attn"):
        qlora.make_qlora(tiny, targets=["c_attn"])


@pytest.mark.filterwarnings("ignore:bitsandbytes..gemv_4bit")
def test_why_sft_qlora_yaml_does_not_evaluate_in_between(dense):
    """Catches: bitsandbytes mended (then evaluate again); our layer with the same fault."""
    reference = bitsandbytes.nn.Linear4bit(IN, OUT, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    reference.load_state_dict(dense.state_dict())
    reference.to("cpu")
    if not reference.support_avx512bf16_for_cpu:
        pytest.skip("this processor has no AVX512-BF16: nothing is repacked")
    ours, gradients = qlora.NF4Linear(dense), []
    for layer in (reference, ours):
        with torch.no_grad():
            layer.eval()(torch.randn(2, IN))
        x = torch.randn(2, IN, requires_grad=True)
        layer.train()(x).sum().backward()
        gradients.append(x.grad)
    assert gradients[0] is None and gradients[1] is not None


def test_the_command(cli, runs, tiny_base):
    """Catches: a command that cannot be started; two trainings on other batches."""
    code, out, err = cli("qlora", "--preset", "smoke", "--model", tiny_base, "--device", "cpu")
    assert code == 0, err
    report = json.loads((runs / "stage2/finetune/latest/report.json").read_text())
    assert report["metrics"]["largest_difference"]["value"] < 0.05  # bfloat16, after one AdamW step
    assert report["metrics"]["mb_nf4-double"]["value"] < report["metrics"]["mb_bf16"]["value"]
    assert "by hand" in out and "nf4-double" in out


@pytest.mark.assets
def test_the_gpu_preset(cli, runs, monkeypatch):
    """Catches: a preset that only a machine with a GPU would find broken. Its own options, on a small 7B."""
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2}  # fmt: skip
    monkeypatch.setattr(base_model, "QWEN_7B", {**base_model.QWEN_7B, **small})
    code, out, err = cli("qlora", "--preset", "gpu", "--device", "cpu", "--steps", 2, "--batch-size", 2)
    assert code == 0, err
    assert "tokens/s" in out


@pytest.mark.assets
def test_a_model_that_does_not_fit(cli, monkeypatch):
    """Catches: a machine that swaps itself to death, where one line would do."""
    monkeypatch.setattr(base_model, "QWEN_7B", {**base_model.QWEN_7B, "num_hidden_layers": 1, "vocab_size": 10**10})
    code, _, err = cli("qlora", "--preset", "gpu", "--device", "cpu")
    assert code == 2 and "does not fit" in err and "--preset cpu" in err
