"""Sampling in groups. Each test names the bug that it catches."""

import torch

from stage2_rag_finetune_deploy.alignment.logprobs import completion_logprobs
from stage2_rag_finetune_deploy.alignment.rollout import draw_tokens, sample_groups
from stage2_rag_finetune_deploy.finetune.generation import generate_ids

PROMPTS = [[5, 6, 7], [5, 6, 9, 10, 11], [30, 31]]


def chance(seed=0):
    """Random numbers."""
    return torch.Generator().manual_seed(seed)


def test_greedy_rollout_is_greedy_generation(build):
    """Catches: a prompt's cache copied for the wrong group."""
    model = build(3)
    rollout = sample_groups(model, PROMPTS, 2, 10, end_id=0, temperature=0.0)
    expected = generate_ids(model, PROMPTS, 10, 0)
    for number, answer in enumerate(expected):
        for row in rollout.completions[2 * number : 2 * number + 2]:
            assert row[: len(answer)] == answer and row[len(answer) :] in ([], [0])


def test_logprobs_are_those_of_the_loss(build):
    """Catches: log-probabilities of other tokens than were drawn, and rows that change places when one ends."""
    model = build(3)
    free = sample_groups(model, PROMPTS, 4, 12, end_id=-1, chance=chance())
    tokens = [token for row in free.completions for token in row]
    end = max(set(tokens), key=tokens.count)
    rollout = sample_groups(model, PROMPTS, 4, 12, end_id=end, chance=chance())
    assert len({len(row) for row in rollout.completions}) > 1
    assert any(rollout.truncated) != all(rollout.truncated)
    logprobs, mask = completion_logprobs(model, PROMPTS, rollout.completions, 4)
    expected = torch.tensor([value for row in rollout.logprobs for value in row])
    torch.testing.assert_close(logprobs[mask], expected, rtol=1e-4, atol=1e-5)


def test_draws_follow_seed_and_differ_in_a_group(build):
    """Catches: a group that is one answer eight times; draws that cannot be repeated."""
    model = build(3)
    first, again, other = (sample_groups(model, PROMPTS, 8, 6, 0, chance=chance(seed)) for seed in (1, 1, 2))
    assert first.completions == again.completions != other.completions
    assert len({tuple(row) for row in first.completions[:8]}) > 1


def test_tokens_are_drawn_from_the_tempered_distribution():
    """Catches: a temperature that multiplies; log-probabilities of another temperature than the draw's."""
    logits = torch.tensor([1.0, 0.0, -1.0]).repeat(20_000, 1)
    for temperature in (0.5, 1.0, 2.0):
        expected = (logits[0] / temperature).softmax(-1)
        ids, logprobs = draw_tokens(logits, temperature, chance())
        torch.testing.assert_close(ids.bincount(minlength=3) / len(ids), expected, atol=0.015, rtol=0)
        torch.testing.assert_close(logprobs, expected.log()[ids])


def test_temperature_zero_takes_the_best():
    """Catches: a division by zero; the log-probability 0 of a certain event."""
    ids, logprobs = draw_tokens(torch.tensor([[0.0, 2.0, 1.0]]), 0.0, None)
    assert ids.tolist() == [1]
    torch.testing.assert_close(logprobs, torch.tensor([0.0, 2.0, 1.0]).log_softmax(-1)[1:2])
