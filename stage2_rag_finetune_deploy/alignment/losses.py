"""SFT, DPO and GRPO as functions of log-probabilities: no model, no data, a dozen lines each.

- sft_loss: what was shown becomes more probable, every token of it with the same weight
- dpo_loss: of two answers, the gap between them grows; the more wrong the gap, the harder the push
- grpo_loss: of a group of answers, each moves by how much better it scored than the group; clipped, so that one batch
  of answers can be used more than once
- kl_to_reference: how far the policy went, from the sampled tokens alone

Derived and drawn in LOSSES.md. Equal to TRL's trainers on the same batch: tests/stage2/alignment/test_against_trl.py.

Shapes: log-probabilities of single tokens are (B, T), padded, with a bool mask (B, T) of what is no padding. What
stands on padding is not looked at.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

EPSILON = 1e-4  # beside the standard deviation, as in TRL


def sft_loss(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Minus the mean log-probability of all response tokens of the batch: a long answer counts more than a short one.

    Args:
        logprobs: (B, T).
        mask: (B, T) bool; nan comes out where it has no True.
    """
    return -logprobs[mask].mean()


# exercise: alignment.dpo_loss
def dpo_loss(
    policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """-log sigmoid(margin), averaged over the pairs.

    Args:
        policy_chosen, ...: log-probabilities of whole answers, summed over their tokens, (B,).
        beta: how firmly the reference is held on to.

    Returns:
        the loss, and the margins (B,): beta * (log-ratio of the chosen - log-ratio of the rejected answer), without
        gradient. TRL's rewards/margins is their mean.

    Rafailov et al. 2023, "Direct Preference Optimization", equation 7.
    """
    margins = beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected))  # (B,)
    return -logsigmoid(margins).mean(), margins.detach()
# end exercise


# exercise: alignment.group_advantages
def group_advantages(rewards: Tensor, group: int, scale: bool = True) -> Tensor:
    """How much better each answer scored than the others to its question: (B,), the mean of every group is 0.

    Args:
        rewards: (B,); rows [i * group, (i + 1) * group) answer question i.
        scale: divide by the group's standard deviation (unbiased, plus 1e-4); off is Dr. GRPO's choice.

    Returns:
        (B,) float32; exactly 0 where all of a group scored the same.

    Raises:
        ValueError: the rows are no whole number of groups, or a group is a single row.

    Shao et al. 2024, "DeepSeekMath", section 4.1.2.
    """
    rows = in_groups(rewards, group)  # (B / group, group)
    centred = rows - rows.mean(1, keepdim=True)
    if scale:
        centred = centred / (rows.std(1, keepdim=True) + EPSILON)
    return centred.masked_fill(alike(rows)[:, None], 0.0).flatten()
# end exercise


def in_groups(rewards: Tensor, group: int) -> Tensor:
    """(B,) as (B / group, group) float32.

    Raises:
        ValueError: the rows are no whole number of groups, or a group is a single row.
    """
    if group < 2 or len(rewards) == 0 or len(rewards) % group:
        raise ValueError(f"{len(rewards)} rewards do not make groups of {group}")
    return rewards.float().view(-1, group)


def alike(rows: Tensor) -> Tensor:
    """Which rows (N, group) hold one value only, (N,) bool. Compared, as the mean of equal values may be rounded."""
    return rows.amax(1) == rows.amin(1)


def zero_std_share(rewards: Tensor, group: int) -> float:
    """Share of the groups in which all scored the same, so that nothing is learnt: TRL's frac_reward_zero_std."""
    return alike(in_groups(rewards, group)).float().mean().item()


# exercise: alignment.kl_to_reference
def kl_to_reference(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference) estimated at each token that the policy drew: exp(d) - d - 1, d = reference - policy.

    Never negative, and right on average, because the mean of exp(d) under the policy is 1.

    Args:
        logprobs, reference: of the drawn tokens, (B, T).

    Schulman 2020, "Approximating KL divergence", the estimator k3; "DeepSeekMath", equation 4.
    """
    difference = reference - logprobs
    return difference.exp() - difference - 1
# end exercise


# exercise: alignment.grpo_loss
def grpo_loss(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float = 0.2, beta: float = 0.0,
    reference: Tensor | None = None, average: str = "tokens", correct_kl: bool = True,
) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
    """Minus the clipped objective of PPO with a group's advantages, plus beta times the KL estimate.

    Args:
        logprobs: under the policy that is trained, (B, T).
        old: under the policy that drew the answers, (B, T), a constant; `logprobs.detach()` at the first update.
        advantages: one for each answer, (B,).
        mask: (B, T) bool.
        clip: tokens whose ratio to `old` left [1 - clip, 1 + clip] in the wanted direction push no further.
        beta: weight of the KL estimate.
        reference: under the model that should be kept near, (B, T), a constant; with beta 0 it is only measured.
        average: "tokens": over all tokens of the batch, as DAPO and TRL do (TRL's loss_type "dapo"; "bnpo" is the same
            in one piece); "sequences": over each answer's tokens and then over answers, as the paper does ("grpo").
        correct_kl: multiply the KL estimate by the ratio, or its gradient is that of KL(reference || policy), the wrong
            way round (LOSSES.md). TRL's use_bias_correction_kl, on there too; the paper goes without.

    Returns:
        the loss, and the figures clip_ratio (share of tokens without push; TRL's clip_ratio/region_mean) and, with a
        reference, kl (mean over tokens).

    Raises:
        ValueError: beta without a reference, or an unknown average.

    "DeepSeekMath", equation 3; Yu et al. 2025, "DAPO", section 3.3.
    """
    if beta and reference is None:
        raise ValueError("a beta other than 0 needs the reference's log-probabilities")
    advantages = advantages[:, None]  # (B, 1)
    ratio = (logprobs - old.detach()).masked_fill(~mask, 0.0).exp()  # (B, T), 1 on padding
    loss = -torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    beyond = ((ratio < 1 - clip) & (advantages < 0)) | ((ratio > 1 + clip) & (advantages > 0))
    figures = {"clip_ratio": beyond[mask].float().mean().item()}
    if reference is not None:
        kl = kl_to_reference(logprobs.masked_fill(~mask, 0.0), reference.detach().masked_fill(~mask, 0.0))
        kl = kl * ratio if correct_kl else kl
        figures["kl"] = kl[mask].mean().item()
        loss = loss + beta * kl if beta else loss
    if average == "tokens":
        return loss[mask].mean(), figures
    if average == "sequences":
        return (loss.masked_fill(~mask, 0.0).sum(1) / mask.sum(1).clamp(min=1)).mean(), figures
    raise ValueError(f"average {average!r}: tokens or sequences")
# end exercise
