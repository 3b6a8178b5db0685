"""The losses in closed form, and their gradients by hand. Each test names the bug that it catches."""

import math

import pytest
import torch
from torch.nn import functional as F

from stage2_rag_finetune_deploy.alignment.losses import (
    dpo_loss,
    group_advantages,
    grpo_loss,
    kl_to_reference,
    sft_loss,
    zero_std_share,
)

close = torch.testing.assert_close
MASK = torch.tensor([[True, True, True], [True, False, False]])


def rows(*values, grad=False):
    """A float64 tensor: what is compared is the formula, not its rounding."""
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def test_sft_is_the_cross_entropy_of_the_response():
    """Catches: a mean of means over the answers, and padding that counts as tokens."""
    logits, ids = torch.randn(2, 3, 5), torch.tensor([[1, 2, 3], [4, 0, 0]])
    logprobs = logits.log_softmax(-1).gather(2, ids[..., None])[..., 0]
    close(sft_loss(logprobs, MASK), F.cross_entropy(logits[MASK], ids[MASK]))


def test_dpo_by_hand():
    """Catches: chosen and rejected exchanged, a reference left out, beta applied to one of the two answers."""
    loss, margins = dpo_loss(rows(-5.0, -2.0), rows(-9.0, -3.0), rows(-6.0, -1.0), rows(-7.0, -8.0), beta=0.5)
    # (-5 + 6) - (-9 + 7) = 3 and (-2 + 1) - (-3 + 8) = -6, halved
    close(margins, rows(1.5, -3.0))
    close(loss, rows((math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(3.0))) / 2)[0])


def test_dpo_gradient_by_hand():
    """Catches: a weight that does not fall as the margin grows; a gradient that flows into the margins' figure."""
    chosen, rejected = rows(-5.0, -2.0, grad=True), rows(-9.0, -3.0, grad=True)
    loss, margins = dpo_loss(chosen, rejected, rows(-6.0, -1.0), rows(-7.0, -8.0), beta=0.5)
    loss.backward()
    push = 0.5 * torch.sigmoid(-margins) / 2  # beta * sigmoid(-margin), averaged over two pairs
    close(chosen.grad, -push)
    close(rejected.grad, push)
    assert push[1] > 5 * push[0] and not margins.requires_grad


def test_dpo_starts_at_log_two():
    """Catches: a loss that is not measured from the reference; with any beta the start model has margin 0."""
    for beta in (0.01, 0.1, 5.0):
        chosen, rejected = torch.randn(4), torch.randn(4)
        loss, margins = dpo_loss(chosen, rejected, chosen, rejected, beta)
        close(loss, torch.tensor(math.log(2)))
        assert (margins == 0).all()


def test_dpo_far_off_is_finite():
    """Catches: log(sigmoid(x)) in two steps, which is -inf from about -100 on."""
    policy = torch.tensor([-1000.0], requires_grad=True)
    loss, _ = dpo_loss(policy, torch.zeros(1), torch.zeros(1), torch.zeros(1), beta=1.0)
    loss.backward()
    close((loss.item(), policy.grad.item()), (1000.0, -1.0))


def test_advantages_by_hand():
    """Catches: the biased standard deviation, groups taken column by column, one mean for the whole batch."""
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0, 3.0, 5.0, 3.0, 5.0])
    std = torch.tensor([0.5, 2 / math.sqrt(3)]) + 1e-4  # sqrt(0.75 / 3), sqrt(4 / 3)
    centred = torch.tensor([[0.75, -0.25, -0.25, -0.25], [-1.0, 1.0, -1.0, 1.0]])
    close(group_advantages(rewards, 4), (centred / std[:, None]).flatten())
    close(group_advantages(rewards, 4, scale=False), centred.flatten())


def test_advantages_do_not_depend_on_the_rewards_unit():
    """Catches: a mean that is not taken off, a deviation that does not divide."""
    rewards = torch.randn(32)
    close(group_advantages(rewards, 8), group_advantages(100 * rewards - 7, 8), atol=2e-3, rtol=0)
    close(group_advantages(rewards, 8).view(4, 8).mean(1), torch.zeros(4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -1 / 3, 1e6 + 0.3])
@pytest.mark.parametrize("scale", [True, False])
def test_a_group_that_is_all_alike_moves_nothing(value, scale):
    """Catches: a rounded mean divided by 1e-4, or 0 / 0."""
    rewards = torch.tensor([value] * 7 + [0.0, 1.0] * 3 + [1.0])
    assert (group_advantages(rewards, 7, scale)[:7] == 0).all()
    assert (group_advantages(rewards, 7, scale)[7:] != 0).all()


def test_share_of_groups_that_are_all_alike():
    """Catches: rows counted in place of groups."""
    assert zero_std_share(torch.tensor([1, 1, 0, 0, 0, 1, 1, 1]), 2) == 0.75
    assert zero_std_share(torch.tensor([1, 1, 0, 0, 0, 1, 1, 1]), 4) == 0.0


@pytest.mark.parametrize(("count", "group"), [(6, 4), (4, 1), (4, 0), (0, 4)])
def test_rewards_that_make_no_groups(count, group):
    """Catches: an answer compared with the answers to another question, nan from a group of one."""
    for function in (group_advantages, zero_std_share):
        with pytest.raises(ValueError, match="groups"):
            function(torch.zeros(count), group)


def test_kl_estimate_is_right_on_average():
    """Catches: the other direction, KL(reference || policy); k1 or k2 in place of k3. Summed over every token."""
    policy, reference = (torch.randn(50, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    exact = (policy.exp() * (policy - reference)).sum()
    close((policy.exp() * kl_to_reference(policy, reference)).sum(), exact)
    other_way = (reference.exp() * (reference - policy)).sum()
    assert abs(exact - other_way) > 0.01  # a test in which both are the same would pass with either


def test_kl_estimate_of_one_token():
    """Catches: a negative estimate, and a gradient other than 1 - reference / policy."""
    policy, reference = rows(-1.0, -2.0, -3.0, grad=True), rows(-1.0, -1.0, -5.0)
    kl = kl_to_reference(policy, reference)
    close(kl, rows(0.0, math.e - 2, math.exp(-2) + 1))
    kl.sum().backward()
    close(policy.grad, 1 - (reference - policy.detach()).exp())


def test_grpo_at_the_first_update():
    """Catches: a sign, a wrong denominator. Where the ratio is 1 the gradient is minus advantage / tokens."""
    advantages = torch.tensor([2.0, -1.0], dtype=torch.float64)
    for average, weight in (("tokens", rows([1 / 4] * 3, [1 / 4] * 3)), ("sequences", rows([1 / 6] * 3, [1 / 2] * 3))):
        logprobs = torch.full((2, 3), -1.5, dtype=torch.float64, requires_grad=True)
        loss, figures = grpo_loss(logprobs, logprobs.detach(), advantages, MASK, average=average)
        loss.backward()
        expected = -advantages[:, None] * weight * MASK
        close(loss.detach(), expected.sum())
        close(logprobs.grad, expected)
        assert figures == {"clip_ratio": 0.0}


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "pushes"),
    [
        (1.5, 1.0, -1.2, False),  # already much more probable: no further
        (1.5, -1.0, 1.5, True),  # more probable though it was bad: back
        (0.5, 1.0, -0.5, True),  # less probable though it was good: back
        (0.5, -1.0, 0.8, False),  # already much less probable: no further
        (1.1, 1.0, -1.1, True),
        (0.9, -1.0, 0.9, True),
    ],
)
def test_clipping_by_hand(ratio, advantage, value, pushes):
    """Catches: max in place of min, a clip that also stops the way back, a ratio upside down."""
    logprobs = rows([-1.0 + math.log(ratio)], grad=True)
    loss, figures = grpo_loss(logprobs, rows([-1.0]), rows(advantage), torch.tensor([[True]]), clip=0.2)
    loss.backward()
    close(loss.item(), value)
    close(logprobs.grad.item(), -ratio * advantage if pushes else 0.0)
    assert figures["clip_ratio"] == float(not pushes)


def test_kl_term_is_added_beta_times():
    """Catches: a KL that is subtracted, that is averaged otherwise than the rest, or added while beta is 0."""
    logprobs, reference = rows([-1.0, -2.0, 0.0], [-3.0, 0.0, 0.0]), rows([-1.5, -1.0, 0.0], [-3.0, 9.0, 9.0])
    kl = kl_to_reference(logprobs, reference)
    for average, mean in (("tokens", kl[MASK].mean()), ("sequences", (kl[0].mean() + kl[1, 0]) / 2)):
        plain, measured = grpo_loss(logprobs, logprobs, rows(1.0, -1.0), MASK, 0.2, 0.0, reference, average)
        loss, figures = grpo_loss(logprobs, logprobs, rows(1.0, -1.0), MASK, 0.2, 0.3, reference, average)
        close(loss - plain, 0.3 * mean)
        assert measured == figures == {"clip_ratio": 0.0, "kl": pytest.approx(kl[MASK].mean().item())}


def test_padding_is_not_looked_at():
    """Catches: padding in a mean; nan or inf on padding that spoils a gradient."""
    clean = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, 0.0, 0.0]])
    for garbage in (float("nan"), float("inf"), -float("inf"), 1e30):
        dirty = clean.masked_fill(~MASK, garbage)
        for average in ("tokens", "sequences"):
            results = []
            for logprobs, other in ((clean.clone(), clean - 0.1), (dirty.clone(), dirty - 0.1)):
                logprobs.requires_grad_()
                loss, figures = grpo_loss(
                    logprobs, other, torch.tensor([1.0, -1.0]), MASK, 0.2, 0.5, other, average
                )
                loss = loss + sft_loss(logprobs, MASK)
                loss.backward()
                results.append((loss.detach(), logprobs.grad, figures))
            close(results[0], results[1])


def test_the_corrected_kl_has_the_gradient_of_kl():
    """Catches: a correction that is missing, detached, or made where it was not wanted.

    One token out of five, as below. Corrected, the mean gradient is that of KL(policy || reference), which is written
    down; without, that of KL(reference || policy).
    """
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(5, dtype=torch.float64).log_softmax(-1)
    policy = logits.log_softmax(-1)
    forward, backward = (policy.exp() * (policy - reference)).sum(), (reference.exp() * (reference - policy)).sum()
    for correct, exact in ((True, forward), (False, backward)):
        total = 0.0
        for token in range(5):  # every draw, times its probability
            one = [value[token].view(1, 1) for value in (policy, policy.detach(), reference)]
            loss, _ = grpo_loss(
                one[0], one[1], rows(0.0), torch.tensor([[True]]), 0.2, 1.0, one[2], correct_kl=correct
            )
            total = total + policy[token].exp().item() * loss
        close(*(torch.autograd.grad(each, logits, retain_graph=True)[0] for each in (total, exact)))


@pytest.mark.parametrize("average", ["tokens", "sequences"])
def test_gradients_agree_with_finite_differences(average):
    """Catches: a detach on the wrong side, in any of the losses."""
    logprobs, old = (torch.rand(2, 3, dtype=torch.float64).log() for _ in range(2))
    advantages, reference = rows(1.0, -2.0), logprobs + 0.3
    assert torch.autograd.gradcheck(
        lambda x: grpo_loss(x, old, advantages, MASK, 0.2, 0.1, reference, average)[0], logprobs.requires_grad_()
    )
    pair = [torch.randn(3, dtype=torch.float64, requires_grad=number < 2) for number in range(4)]
    assert torch.autograd.gradcheck(lambda *each: dpo_loss(*each, 0.7)[0], pair)


def test_grpo_climbs_the_expected_reward():
    """Catches: a loss whose gradient is not that of what one wants to raise.

    One token out of five: with every token once, weighted by its probability, the gradient of the loss is minus the
    gradient of the mean reward, whatever baseline is taken off.
    """
    reward = rows(0.0, 1.0, 0.2, 0.0, 0.7)
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    wanted = torch.autograd.grad((logits.softmax(-1) * reward).sum(), logits)[0]
    for baseline in (0.0, 0.4):
        logprobs = logits.log_softmax(-1)
        advantages = 5 * logprobs.detach().exp() * (reward - baseline)
        ones = torch.ones(5, 1, dtype=torch.bool)
        loss, _ = grpo_loss(logprobs[:, None], logprobs.detach()[:, None], advantages, ones)
        close(torch.autograd.grad(loss, logits)[0], -wanted)


def test_what_grpo_refuses():
    """Catches: a KL term that is silently left out; an average by a misspelt name."""
    one, advantage, mask = torch.zeros(1, 1), torch.ones(1), torch.tensor([[True]])
    with pytest.raises(ValueError, match="reference"):
        grpo_loss(one, one, advantage, mask, beta=0.04)
    with pytest.raises(ValueError, match="'token'"):
        grpo_loss(one, one, advantage, mask, average="token")
