"""Each test names the bug that it catches."""

import pytest
import torch
from torch import nn

from stage1_foundations.gpt.muon import Muon, orthogonalise


def parameter(*shape: int) -> nn.Parameter:
    """A random matrix with a random gradient."""
    weight = nn.Parameter(torch.randn(*shape))
    weight.grad = torch.randn(*shape)
    return weight


@pytest.mark.parametrize("shape", [(4, 16, 64), (4, 64, 16), (2, 48, 144), (3, 1, 8)])
def test_singular_values_become_about_one(shape):
    """Catches: wrong coefficients, one norm for the whole stack, tall matrices not turned."""
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.min() > 0.6 and values.max() < 1.3  # the polynomial's fixed band is [0.7, 1.2]


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_scale_of_the_gradient_does_not_matter(scale):
    """Catches: a missing first division, without which the polynomial explodes."""
    matrices = torch.randn(2, 8, 24)
    assert torch.allclose(orthogonalise(scale * matrices), orthogonalise(matrices), atol=1e-3)


def test_singular_vectors_are_kept():
    """Catches: a result that is orthogonal but is not the nearest one to the gradient."""
    u, _, v = torch.linalg.svd(torch.randn(16, 16))
    matrix = u @ torch.diag(torch.linspace(1.0, 3.0, 16)) @ v
    rotated = u.mT @ orthogonalise(matrix[None])[0] @ v.mT
    assert (rotated - torch.diag(rotated.diag())).abs().max() < 1e-4
    assert rotated.diag().min() > 0.6


def test_a_stack_equals_one_by_one():
    """Catches: matrices of a stack that see each other."""
    matrices = torch.randn(5, 12, 20)
    one_by_one = torch.cat([orthogonalise(matrix[None]) for matrix in matrices])
    assert torch.allclose(orthogonalise(matrices), one_by_one, atol=1e-5)


def test_zero_gradient_stays_zero():
    """Catches: 0 / 0 in a part that got no gradient, such as behind a zero-initialised projection."""
    assert torch.equal(orthogonalise(torch.zeros(1, 4, 8)), torch.zeros(1, 4, 8))


def test_first_step_by_hand():
    """Catches: momentum without Nesterov, a scale that is not sqrt(rows / columns), a sign error."""
    for shape in ((16, 48), (48, 16)):
        weight = parameter(*shape)
        before, gradient = weight.detach().clone(), weight.grad.clone()
        Muon([weight], lr=0.1, momentum=0.9).step()
        direction = orthogonalise(gradient[None])[0]  # a multiple of the gradient, whatever the momentum
        scale = max(1.0, shape[0] / shape[1]) ** 0.5
        assert torch.allclose(weight, before - 0.1 * scale * direction, atol=1e-5)


def test_nesterov_momentum_by_hand():
    """Catches: a momentum that forgets the last gradient or counts it once too often."""
    weight = parameter(8, 24)
    optimizer = Muon([weight], lr=0.1, momentum=0.9)
    first = weight.grad.clone()
    optimizer.step()
    before, second = weight.detach().clone(), torch.randn(8, 24)
    weight.grad = second.clone()
    optimizer.step()
    momentum = 0.9 * (0.1 * first) + 0.1 * second
    direction = orthogonalise((0.1 * second + 0.9 * momentum)[None])[0]
    assert torch.allclose(weight, before - 0.1 * direction, atol=1e-5)


def test_matrices_of_one_shape_do_not_mix():
    """Catches: results of the batched call handed to the wrong matrix, also where one lies on its side."""
    together = [parameter(8, 24), parameter(24, 8), parameter(8, 24), parameter(16, 16)]
    apart = [nn.Parameter(p.detach().clone()) for p in together]
    for ours, theirs in zip(apart, together, strict=True):
        ours.grad = theirs.grad.clone()
    Muon(together, lr=0.1).step()
    for weight in apart:
        Muon([weight], lr=0.1).step()
    for ours, theirs in zip(apart, together, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_fused_matrix_is_several_matrices():
    """Catches: q, k and v orthogonalised as one, so that a loud one silences the others."""
    fused = parameter(8 + 4 + 4, 8)
    fused.grad[8:] *= 1e-3
    fused.muon_rows = [8, 4, 4]
    parts = [nn.Parameter(p.clone()) for p in fused.detach().split([8, 4, 4])]
    for part, gradient in zip(parts, fused.grad.split([8, 4, 4]), strict=True):
        part.grad = gradient.clone()
    Muon([fused], lr=0.1).step()
    Muon(parts, lr=0.1).step()
    assert torch.allclose(fused, torch.cat(parts), atol=1e-4)


def test_decay_is_cautious():
    """Catches: decay that works against the update, or that is applied with the rate counted twice."""
    weight, plain = parameter(8, 24), None
    plain = nn.Parameter(weight.detach().clone())
    plain.grad = weight.grad.clone()
    before = weight.detach().clone()
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    Muon([plain], lr=0.1).step()
    update = (before - plain.detach()) / 0.1
    shrunk = torch.where(before * update > 0, 0.1 * 0.5 * before, torch.zeros(()))
    assert (shrunk != 0).any() and (shrunk == 0).any()
    assert torch.allclose(weight, plain - shrunk, atol=1e-6)


def test_state_resumes():
    """Catches: momentum that starts again at zero after a checkpoint."""
    straight = parameter(8, 24)
    resumed = nn.Parameter(straight.detach().clone())
    gradients = torch.randn(6, 8, 24)

    def run(weight: nn.Parameter, optimizer: Muon, part: torch.Tensor) -> None:
        for gradient in part:
            weight.grad = gradient.clone()
            optimizer.step()

    run(straight, Muon([straight], lr=0.1, weight_decay=0.1), gradients)
    first = Muon([resumed], lr=0.1, weight_decay=0.1)
    run(resumed, first, gradients[:3])
    second = Muon([resumed], lr=0.1, weight_decay=0.1)
    second.load_state_dict(first.state_dict())
    run(resumed, second, gradients[3:])
    assert torch.equal(straight, resumed)


def test_a_parameter_without_gradient_is_left_alone():
    """Catches: a crash, or decay, of a frozen matrix."""
    trained, frozen = parameter(4, 8), parameter(4, 8)
    frozen.grad = None
    before = frozen.detach().clone()
    Muon([trained, frozen], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(frozen, before)
