"""Each test names the bug that it catches."""

import copy

import pytest
import torch

from stage2_rag_finetune_deploy.quantization.awq import CLIPS, fold, search_clips, search_scales
from stage2_rag_finetune_deploy.quantization.blocks import block_groups
from stage2_rag_finetune_deploy.quantization.grid import Scheme, round_to_nearest, rounded
from stage2_rag_finetune_deploy.quantization.hessian import InputStatistics, output_error

SCHEME = Scheme(3, 16)


@pytest.fixture
def strong():
    """Statistics of inputs of which a few are thirty times as strong as the others."""
    x = torch.randn(500, 64)
    x[:, ::16] *= 30
    statistics = InputStatistics(64)
    statistics.add(x)
    return statistics


def test_strong_inputs_get_larger_weights(strong):
    """Catches: factors turned upside down; a search that keeps the worst; plain rounding reported as the best."""
    weight = torch.randn(24, 64)
    scales = search_scales(weight, strong, SCHEME, 10)
    assert scales[::16].min() > 2 * scales[1]
    better = output_error(weight, rounded(weight * scales, SCHEME) / scales, strong.hessian)
    assert better < 0.5 * output_error(weight, rounded(weight, SCHEME), strong.hessian)
    assert (scales.max() * scales.min()).item() == pytest.approx(1, rel=1e-4)


def test_factors_are_of_the_family_and_the_best_of_it(strong):
    """Catches: a family other than (mean |x|)^ratio; the last ratio taken in place of the best."""
    weight, found = torch.randn(24, 64), []
    for step in range(5):
        scales = strong.mean_absolute ** (step / 5)
        scales = scales / (scales.max() * scales.min()).sqrt()
        found.append((output_error(weight, rounded(weight * scales, SCHEME) / scales, strong.hessian), scales))
    best = min(found, key=lambda pair: pair[0])[1]
    assert torch.allclose(search_scales(weight, strong, SCHEME, 5), best, rtol=1e-4)


def test_clipping_helps_where_one_weight_is_far_out(strong):
    """Catches: clips of another group; errors of the whole row in place of the group's."""
    weight = torch.randn(24, 64) * 0.1
    weight[:, 5] = 1.0
    hessian = torch.eye(64)
    hessian[5, 5] = 1e-6  # the weight that is far out does not matter
    clips = search_clips(weight, hessian, SCHEME)
    assert clips.shape == (24, 4, 1)
    assert (clips[:, 0] == pytest.approx(min(CLIPS))) and (clips[:, 1:].mean() > clips[:, 0].mean())
    before = output_error(weight, round_to_nearest(weight, SCHEME).weights(), hessian)
    assert output_error(weight, round_to_nearest(weight, SCHEME, clips).weights(), hessian) < before


@pytest.mark.parametrize("sharing", [True, False])
@torch.inference_mode()
def test_folding_changes_nothing(build, ids, sharing):
    """Catches: a factor multiplied where it is to be divided; a fold that changes the block's outputs."""
    model = build(1, sharing=sharing, bias=True)
    folded = copy.deepcopy(model)
    for block in folded.model.layers:
        for group in block_groups(block):
            assert (group.before is None) == (sharing and group.names[0] == "self_attn.o_proj")
            if group.before is not None:
                fold(torch.rand(group.layers[0].in_features) * 3 + 0.3, group.before, group.layers)
    assert torch.allclose(model(ids).logits, folded(ids).logits, atol=2e-3)
    assert not torch.equal(model.model.layers[0].mlp.down_proj.weight, folded.model.layers[0].mlp.down_proj.weight)
