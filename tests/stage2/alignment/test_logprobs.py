"""Log-probabilities of completions. Each test names the bug that it catches."""

import pytest
import torch

from stage2_rag_finetune_deploy.alignment.logprobs import completion_logits, completion_logprobs, per_token
from stage2_rag_finetune_deploy.finetune import lora

PROMPTS = [[5, 6, 7], [5, 6, 9, 10, 11]]
COMPLETIONS = [[20, 21], [22], [23, 24, 25, 26], [27, 28, 29]]  # two to a prompt


@pytest.fixture
def adapted(build):
    """A model with an adapter that is not zero."""
    model = lora.inject(build(0), rank=4, alpha=8)
    for parameter in lora.lora_parameters(model):
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def one_by_one(model, prompts, completions, group):
    """What plain transformers says about each row alone."""
    rows = []
    for number, completion in enumerate(completions):
        prompt = prompts[number // group]
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        rows.append(torch.log_softmax(logits, -1).gather(1, torch.tensor(completion)[:, None])[:, 0])
    return rows


def test_logprobs_are_transformers(adapted):
    """Catches: labels off by one, wrong positions behind a short prompt, padding that is attended to, mixed rows."""
    logprobs, mask = completion_logprobs(adapted, PROMPTS, COMPLETIONS, group=2)
    expected = one_by_one(adapted, PROMPTS, COMPLETIONS, 2)
    assert mask.sum(1).tolist() == [2, 1, 4, 3] and logprobs.shape == (4, 4)
    assert (logprobs[~mask] == 0).all()
    for row, keep, alone in zip(logprobs, mask, expected, strict=True):
        torch.testing.assert_close(row[keep], alone, rtol=1e-4, atol=1e-5)


def test_gradients_are_transformers(adapted, build):
    """Catches: a prompt whose keys and values are copied without their gradient."""
    logprobs, mask = completion_logprobs(adapted, PROMPTS, COMPLETIONS, group=2)
    weights = torch.arange(1.0, 5.0)[:, None]
    (logprobs * weights).sum().backward()
    mine = [parameter.grad.clone() for parameter in lora.lora_parameters(adapted)]
    adapted.zero_grad()
    sum(weight * row.sum() for weight, row in zip(weights[:, 0], one_by_one(adapted, PROMPTS, COMPLETIONS, 2),
                                                  strict=True)).backward()  # fmt: skip
    for ours, parameter in zip(mine, lora.lora_parameters(adapted), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-3, atol=1e-5)


def test_completions_of_one_token(adapted):
    """Catches: a second forward pass over nothing."""
    logprobs, mask = completion_logprobs(adapted, PROMPTS, [[20], [21]])
    assert logprobs.shape == (2, 1) and mask.all()
    for row, alone in zip(logprobs, one_by_one(adapted, PROMPTS, [[20], [21]], 1), strict=True):
        torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-5)


def test_values_are_laid_out_row_by_row(adapted):
    """Catches: the first tokens' values in front of all others, so that they belong to the wrong tokens."""
    first, others, ids, mask = completion_logits(adapted, PROMPTS, COMPLETIONS, group=2)
    best = per_token(first.argmax(-1), others.argmax(-1), mask)
    for row, completion in enumerate(COMPLETIONS):
        prompt = PROMPTS[row // 2]
        alone = adapted(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].argmax(-1)
        assert best[row].tolist() == [*alone.tolist(), *[0] * (4 - len(completion))]
        assert ids[row][mask[row]].tolist() == completion
