"""Each test names the bug that it catches."""

import pytest
import torch
from torch import nn

from stage1_foundations.gpt.model import GPT
from stage1_foundations.gpt.model_config import SHAPES, model_config
from stage1_foundations.gpt.muon import Muon
from stage1_foundations.gpt.optimizer import adamw_groups, build_optimizers, hidden_matrices, set_rate


@pytest.fixture(params=SHAPES)
def model(request) -> GPT:
    return GPT(model_config(request.param, vocab_size=19, context=8, layers=2, heads=3, width=24))


def built(model: GPT, kind: str) -> list[torch.optim.Optimizer]:
    """The optimisers with rates that tell them apart."""
    return build_optimizers(
        model, kind, lr=1e-3, matrix_lr=2e-2, weight_decay=0.1, betas=(0.9, 0.95), dtype=torch.float32
    )


def test_adamw_groups_split_by_dimension():
    """Catches: decayed gains and biases, which pulls norms towards zero; matrices not decayed."""
    matrix, table, gain, scalar = (nn.Parameter(torch.zeros(s)) for s in ((2, 3), (5, 2), (3,), ()))
    decayed, kept = adamw_groups([gain, matrix, scalar, table], 0.1)
    assert decayed["weight_decay"] == 0.1 and kept["weight_decay"] == 0.0
    assert [id(p) for p in decayed["params"]] == [id(matrix), id(table)]
    assert [id(p) for p in kept["params"]] == [id(gain), id(scalar)]


def test_adamw_groups_leave_out_an_empty_group():
    """Catches: the ValueError that torch raises for an empty parameter list."""
    assert len(adamw_groups([nn.Parameter(torch.zeros(2, 2))], 0.1)) == 1


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_every_parameter_is_trained_once(model, kind):
    """Catches: a part that no optimiser has, or a tied matrix that two of them move."""
    taken = [
        p for optimizer in built(model, kind) for group in optimizer.param_groups for p in group["params"]
    ]
    assert len(taken) == len({id(p) for p in taken})
    assert {id(p) for p in taken} == {id(p) for p in model.parameters()}


def test_muon_takes_the_hidden_matrices_only(model):
    """Catches: embeddings, the head or a gain under Muon, which its paper warns of."""
    muon, adamw = built(model, "muon")
    assert isinstance(muon, Muon) and isinstance(adamw, torch.optim.AdamW)
    inside = {id(p) for group in muon.param_groups for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in inside}
    ends = (
        "attention.qkv.weight",
        "attention.out.weight",
        "feed_forward.up.weight",
        "feed_forward.down.weight",
    )
    assert names == {f"blocks.{layer}.{end}" for layer in range(2) for end in ends}


def test_tables_are_not_decayed_beside_muon(model):
    """Catches: rows of rare tokens that shrink at every step in which they do not occur."""
    _, adamw = built(model, "muon")
    assert {group["weight_decay"] for group in adamw.param_groups} == {0.0}
    (alone,) = built(model, "adamw")
    assert {group["weight_decay"] for group in alone.param_groups} <= {0.1, 0.0}
    assert alone.param_groups[0]["weight_decay"] == 0.1


def test_fused_matrices_carry_their_cuts(model):
    """Catches: q, k and v orthogonalised as one matrix, or cut at thirds where keys are grouped."""
    hidden_matrices(model)
    for block in model.blocks:
        rows = block.attention.qkv.weight.muon_rows
        assert list(rows) == [24, 8 * block.attention.kv_heads, 8 * block.attention.kv_heads]
        assert sum(rows) == block.attention.qkv.weight.shape[0]
        assert not hasattr(block.attention.out.weight, "muon_rows")


def test_rate_is_a_share_of_each_groups_peak(model):
    """Catches: one rate for both optimisers; a factor that multiplies the last rate and so decays twice."""
    optimizers = built(model, "muon")
    for factor in (1.0, 0.5, 0.25):
        set_rate(optimizers, factor)
        assert [g["lr"] for g in optimizers[0].param_groups] == [2e-2 * factor]
        assert {g["lr"] for g in optimizers[1].param_groups} == {1e-3 * factor}
