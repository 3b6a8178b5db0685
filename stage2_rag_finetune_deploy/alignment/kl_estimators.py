"""Three estimators of KL(policy || reference) from tokens that the policy drew, and how good they are, measured.

    d = log reference(token) - log policy(token)
    k1 = -d                 right on average, often negative, noisy
    k2 = d^2 / 2            never negative, a little off
    k3 = exp(d) - d - 1     never negative and right on average: what GRPO takes

As a term of a loss, what counts is the gradient, and there the order is another: see `gradient_error`.

Schulman 2020, "Approximating KL divergence".
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stage2_rag_finetune_deploy.alignment.losses import kl_to_reference

Estimator = Callable[[Tensor, Tensor], Tensor]


def k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """The log-ratio itself."""
    return logprobs - reference


def k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Half the log-ratio's square."""
    return (logprobs - reference).square() / 2


def k3_corrected(logprobs: Tensor, reference: Tensor) -> Tensor:
    """k3 times a ratio that is 1 and has a gradient: grpo_loss with correct_kl at its first update."""
    return kl_to_reference(logprobs, reference) * (logprobs - logprobs.detach()).exp()


ESTIMATORS: dict[str, Estimator] = {"k1": k1, "k2": k2, "k3": kl_to_reference, "k3 times ratio": k3_corrected}


@dataclass(frozen=True)
class Quality:
    """Of one estimator at one distance.

    Attributes:
        mean: of its draws, as a share of the exact divergence.
        std: of one draw, as a multiple of the exact divergence.
        negative: share of draws below 0.
        gradient_error: |mean gradient - exact gradient| / |exact gradient|.
    """

    mean: float
    std: float
    negative: float
    gradient_error: float


def exact_kl(policy: Tensor, reference: Tensor) -> Tensor:
    """KL of rows of log-probabilities (..., V), in nats: (...)."""
    return (policy.exp() * (policy - reference)).sum(-1)


def distributions(spread: float, vocabulary: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits (V,) of a policy, and log-probabilities (V,) of a reference: its logits are those plus noise."""
    chance = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(vocabulary, generator=chance, dtype=torch.float64)
    noise = torch.randn(vocabulary, generator=chance, dtype=torch.float64)
    return logits, (logits + spread * noise).log_softmax(-1)


def measure_estimators(spread: float, vocabulary: int, draws: int, seed: int) -> tuple[float, dict[str, Quality]]:
    """The exact divergence between policy and reference in nats, and the quality of every estimator."""
    logits, reference = distributions(spread, vocabulary, seed)
    policy, chance = logits.log_softmax(-1), torch.Generator().manual_seed(seed + 1)
    exact = exact_kl(policy, reference).item()
    tokens = torch.multinomial(policy.exp(), draws, replacement=True, generator=chance)
    found = {}
    for name, estimator in ESTIMATORS.items():
        drawn = estimator(policy[tokens], reference[tokens])
        found[name] = Quality(
            drawn.mean().item() / exact, drawn.std().item() / exact, (drawn < 0).double().mean().item(),
            gradient_error(estimator, logits, reference),
        )  # fmt: skip
    return exact, found


def gradient_error(estimator: Estimator, logits: Tensor, reference: Tensor) -> float:
    """How far an estimator's gradient is on average from that of the divergence, relative.

    The mean over draws is taken exactly: every token once, weighted with its probability, which has no gradient; that
    is what a loss over drawn tokens tends to.
    """
    logits = logits.detach().requires_grad_()
    policy = logits.log_softmax(-1)
    expected = (policy.detach().exp() * estimator(policy, reference)).sum()
    mean = torch.autograd.grad(expected, logits, retain_graph=True)[0]
    wanted = torch.autograd.grad(exact_kl(policy, reference), logits)[0]
    return ((mean - wanted).norm() / wanted.norm()).item()
