"""Batched generation. Each test names the bug that it catches."""

from contextlib import contextmanager

import pytest
import torch

from data.customer_service.prompt import prompt_messages
from labkit.packed_product import packed_linear_layers
from stage2_rag_finetune_deploy.finetune import generation
from stage2_rag_finetune_deploy.finetune.chat_format import encode
from stage2_rag_finetune_deploy.finetune.generation import (
    LONG,
    common_prefix,
    decode,
    generate,
    generate_ids,
    prefill,
)
from stage2_rag_finetune_deploy.finetune.grouped_attention import NAME, without_copies

TEXTS = ["hi", "where is my parcel?", "hello", "KM1 is broken and I would like another one please"]


def prompts():
    """Chat prompts of different lengths."""
    return [prompt_messages(text) for text in TEXTS]


@pytest.fixture
def talker(build):
    """A model whose answers end at different lengths: the end of turn is likelier than its random head has it."""
    return build(3)


def one_by_one(model, rows, limit, end):
    """What transformers writes for each prompt alone."""
    answers = []
    for row in rows:
        out = model.generate(torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.long),
                             do_sample=False, max_new_tokens=limit, eos_token_id=end, pad_token_id=end)  # fmt: skip
        new = out[0, len(row) :].tolist()
        answers.append(new[: new.index(end)] if end in new else new)
    return answers


def test_a_batch_gives_what_each_prompt_gives_alone(talker, tokenizer):
    """Catches: padding that is attended to, positions that are off, a finished row that takes another's place."""
    rows = [encode(tokenizer, messages).ids for messages in prompts()]
    free = one_by_one(talker, rows, 24, tokenizer.eos_token_id)
    end = max({token for answer in free for token in answer},  # a token that ends the answers at different places
              key=lambda token: len({answer.index(token) if token in answer else 24 for answer in free}))  # fmt: skip
    expected = one_by_one(talker, rows, 24, end)
    assert len({len(answer) for answer in expected}) > 1
    assert generate_ids(talker, rows, 24, end) == expected
    assert generate_ids(talker, rows[:1], 24, end) == expected[:1]


def test_weights_are_arranged_for_long_answers_alone(talker, tokenizer, monkeypatch):
    """Catches: half a second of arranging for answers of three tokens; other answers from the arranged weights; copies
    that stay.
    """
    started = []

    @contextmanager
    def noticed(model):
        started.append(model)
        with packed_linear_layers(model):
            yield

    monkeypatch.setattr(generation, "packed_linear_layers", noticed)
    rows = [encode(tokenizer, messages).ids for messages in prompts()]
    assert len(generate_ids(talker, rows, LONG, -1)[0]) == LONG and started == []
    assert generate_ids(talker, rows, LONG + 9, -1) == one_by_one(talker, rows, LONG + 9, -1)
    assert started == [talker] and not any("forward" in vars(module) for module in talker.modules())


def test_answers_come_in_the_order_of_the_prompts(talker, tokenizer):
    """Catches: answers in the order of their lengths; a batch size that changes them."""
    together = generate(talker, tokenizer, prompts(), max_new_tokens=8, batch=4)
    alone = [generate(talker, tokenizer, [prompt], max_new_tokens=8)[0] for prompt in prompts()]
    assert together == alone == generate(talker, tokenizer, prompts(), max_new_tokens=8, batch=2)


def test_draws_follow_the_seed(talker, tokenizer):
    """Catches: sampling that cannot be repeated, or that is greedy."""
    def draw(seed):
        return generate(talker, tokenizer, prompts(), max_new_tokens=8, temperature=1.0, seed=seed)

    assert draw(1) == draw(1) != draw(2)


def test_the_mode_is_left_as_it_was(talker, tokenizer):
    """Catches: dropout that stays off in training after an evaluation."""
    talker.train()
    generate(talker, tokenizer, prompts(), max_new_tokens=2)
    assert talker.training


def test_common_prefix_by_hand():
    """Catches: a prompt that is nothing but the prefix."""
    assert common_prefix([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert common_prefix([[1, 2], [1, 2, 3]]) == 1
    assert common_prefix([[1], [1]]) == 0


def test_the_head_is_not_copied_for_every_row(talker, tokenizer):
    """Catches: a strided (B, 1, C) for the frozen head, of which PyTorch makes B copies: 3.6 GB for 64 prompts."""
    seen = []
    talker.requires_grad_(False).lm_head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    generate(talker, tokenizer, prompts(), max_new_tokens=3)
    assert seen and all(hidden.dim() == 2 or hidden.is_contiguous() for hidden in seen)


def test_grouped_attention_gives_the_same_logits(talker, tokenizer):
    """Catches: heads that read another group's keys; padding that is attended to."""
    assert talker.config.num_attention_heads > talker.config.num_key_value_heads > 1
    rows = [encode(tokenizer, messages).ids for messages in prompts()]
    found = []
    for grouped in (False, True):
        with torch.inference_mode():
            _, cache, mask = prefill(talker, rows)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
            step = {"attention_mask": mask, "position_ids": mask.sum(1, keepdim=True) - 1, "past_key_values": cache}
            ids = torch.tensor([[5], [6], [7], [8]])
            if grouped:
                with without_copies(talker):
                    assert talker.config._attn_implementation == NAME
                    found.append(talker(ids, **step).logits)
            else:
                found.append(talker(ids, **step).logits)
    assert (mask == 0).any() and torch.allclose(*found, atol=1e-5)


def test_the_attention_is_put_back(talker, tokenizer):
    """Catches: a model that keeps the attention of `decode` for its training."""
    rows = [encode(tokenizer, messages).ids for messages in prompts()]
    with torch.inference_mode():
        written = decode(talker, *prefill(talker, rows), 8, -1, lambda logits: logits.argmax(-1))
        next(written), next(written)
        assert talker.config._attn_implementation == NAME
        written.close()
    assert talker.config._attn_implementation == "sdpa"
