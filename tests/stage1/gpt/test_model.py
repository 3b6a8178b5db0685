"""Each test names the bug that it catches."""

import math

import pytest
import torch

from labkit.errors import LabError
from stage1_foundations.gpt.model import GPT
from stage1_foundations.gpt.model_config import SHAPES, ModelConfig, bigram_table_rows, model_config
from stage1_foundations.gpt.optimizer import build_optimizers
from stage1_foundations.gpt.train_config import NANOGPT_CPU, TrainConfig


def meta_model(shape: str, **sizes) -> GPT:
    """A model without memory, to count its parameters."""
    with torch.device("meta"):
        return GPT(model_config(shape, **sizes))


def test_gpt2_small_has_gpt2_parameters():
    """Catches: an untied head (163 M), a missing bias, a position table of another length."""
    model = meta_model("gpt2", vocab_size=50257, context=1024, layers=12, heads=12, width=768)
    assert model.parameter_count() == 124_439_808


def test_smollm2_shape_has_smollm2_parameters():
    """Catches: queries and keys of one width (no grouping), a feed-forward of another width."""
    sizes = {"vocab_size": 49152, "context": 8192, "layers": 30, "heads": 9, "width": 576}
    assert meta_model("llama", **sizes).parameter_count() == 134_515_008


def test_nanogpt_cpu_recipe_has_its_0_80_million():
    """Catches: an anchor in `bench` that is not nanoGPT's model (it counts without the position table)."""
    with torch.device("meta"):
        model = GPT(NANOGPT_CPU.model_config(vocab_size=65))
    count = model.parameter_count() - model.position_embedding.weight.numel()
    assert round(count / 1e6, 2) == 0.80


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_tied_weights_are_one_memory(build, shape):
    """Catches: a copy instead of a tie, which drifts apart in training and doubles the parameters."""
    model = build(shape)
    assert model.head.weight.data_ptr() == model.token_embedding.weight.data_ptr()
    model.load_state_dict(model.state_dict())
    assert model.head.weight is model.token_embedding.weight


def test_modern_has_a_head_of_its_own(build):
    """Catches: a tie of the zero-initialised head, which would also zero the embedding."""
    model = build("modern")
    assert model.head.weight.data_ptr() != model.token_embedding.weight.data_ptr()


@pytest.mark.parametrize("shape", SHAPES)
def test_first_loss_is_that_of_guessing(shape):
    """Catches: an initialisation that is confident about something, which costs the first hundred steps."""
    model = GPT(model_config(shape, vocab_size=65, context=64, layers=4, heads=4, width=128))
    ids = torch.randint(65, (8, 65))
    loss = model.loss(ids[:, :-1], ids[:, 1:]).item()
    assert abs(loss - math.log(65)) < (
        1e-5 if shape == "modern" else 0.1
    )  # zero head; logits of deviation 0.2


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("shape", SHAPES)
def test_overfits_one_batch(shape, optimizer):
    """Catches: gradients that do not reach a part, shifted targets, a dead initialisation."""
    model = GPT(model_config(shape, vocab_size=19, context=16, layers=2, heads=3, width=48))
    ids = torch.randint(19, (4, 17))
    optimizers = build_optimizers(
        model, optimizer, lr=0.01, matrix_lr=0.02, weight_decay=0.0, betas=(0.9, 0.95), dtype=torch.float32
    )
    for _ in range(80):
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        for each in optimizers:
            each.step()
            each.zero_grad()
    assert loss.item() < 0.1  # random tokens: nothing but memory gets below ln 19 = 2.9


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_is_the_mean_over_all_tokens(build, shape):
    """Catches: a sum, a shift inside the model on top of the shift in the data, a loss in half precision."""
    model = build(shape)
    ids, targets = torch.randint(19, (2, 3, 11))
    log_probability = model(ids).log_softmax(-1)
    by_hand = -sum(log_probability[b, t, targets[b, t]] for b in range(3) for t in range(11)) / 33
    assert abs(model.loss(ids, targets).item() - by_hand.item()) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_last_only_is_the_last_position(build, shape):
    """Catches: the first position's logits used for drawing."""
    model = build(shape)
    ids = torch.randint(19, (2, 9))
    assert torch.allclose(model(ids, last_only=True), model(ids)[:, -1:], atol=1e-5)


@pytest.mark.parametrize("vocab_size", [3, 19, 256])
def test_bigram_rows_of_small_vocabularies_are_unique(vocab_size):
    """Catches: two pairs that share a row although the table has room for each."""
    with torch.device("meta"):
        rows = bigram_table_rows(vocab_size)
        sizes = {"context": 4, "layers": 1, "heads": 1, "width": 4}
        model = GPT(model_config("modern", vocab_size=vocab_size, bigram_rows=rows, **sizes))
    pairs = torch.cartesian_prod(torch.arange(vocab_size), torch.arange(vocab_size))
    rows = model.bigram_rows(pairs, None)[:, 1]
    assert model.bigram_embedding.weight.shape[0] == vocab_size**2
    assert torch.equal(rows.sort().values, torch.arange(vocab_size**2))


def test_bigram_rows_of_large_vocabularies_stay_inside():
    """Catches: an index past the table when V^2 rows do not fit."""
    with torch.device("meta"):
        rows, sizes = bigram_table_rows(5000), {"context": 4, "layers": 1, "heads": 1, "width": 4}
        model = GPT(model_config("modern", vocab_size=5000, bigram_rows=rows, **sizes))
    rows = model.bigram_rows(torch.randint(5000, (8, 50)), None)
    assert model.bigram_embedding.weight.shape[0] == 65_536
    assert rows.min() >= 0 and rows.max() < 65_536


@pytest.mark.parametrize("shape", SHAPES)
def test_more_tokens_than_the_context_is_an_error(build, shape):
    """Catches: positions that wrap around or are cut off in silence."""
    model = build(shape)
    model(torch.zeros(1, 24, dtype=torch.long))
    with pytest.raises(ValueError, match="25 tokens do not fit the context of 24"):
        model(torch.zeros(1, 25, dtype=torch.long))
    cache = model.new_cache()
    model(torch.zeros(1, 20, dtype=torch.long), cache)
    with pytest.raises(ValueError, match="25 tokens do not fit"):
        model(torch.zeros(1, 5, dtype=torch.long), cache)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 50, "heads": 6}, "not a multiple of heads"),
        ({"heads": 6, "kv_heads": 4}, "not a multiple of kv_heads"),
        ({"width": 18, "heads": 6, "position": "rope"}, "even head size"),
        ({"position": "absolute"}, "unknown part 'absolute'"),
        ({"norm": "batchnorm"}, "unknown part 'batchnorm'"),
        ({"feed_forward": "relu"}, "unknown part 'relu'"),
    ],
)
def test_sizes_that_do_not_fit_are_one_clear_line(change, words):
    """Catches: a shape error from deep inside torch, or an unknown part that falls back to a default."""
    sizes = {"vocab_size": 19, "context": 24, "layers": 1, "heads": 6, "width": 48}
    with pytest.raises(LabError, match=words):
        model_config("gpt2", **{**sizes, **change})


def test_unknown_shape_is_one_clear_line():
    """Catches: a KeyError."""
    with pytest.raises(LabError, match="unknown shape 'bert'"):
        model_config("bert", vocab_size=19, context=24, layers=1, heads=6, width=48)


def test_parts_replace_the_shapes_own():
    """Catches: an ablation that trains the same model under another name."""
    config = TrainConfig(
        shape="modern", position="alibi", norm="layernorm", feed_forward="swiglu", dropout=0.1
    )
    changed = config.model_config(vocab_size=19)
    assert (changed.position, changed.norm, changed.feed_forward, changed.dropout) == (
        "alibi", "layernorm", "swiglu", 0.1,
    )  # fmt: skip
    plain = TrainConfig(shape="modern").model_config(vocab_size=19)
    assert (plain.position, plain.norm, plain.feed_forward) == ("rope", "rmsnorm", "relu2")


def test_dropout_acts_in_training_only():
    """Catches: dropout that is never applied, or that is applied while sampling."""
    shape = {"vocab_size": 19, "context": 24, "layers": 2, "heads": 2, "width": 16}
    model = GPT(model_config("gpt2", **shape, dropout=0.5))
    ids = torch.randint(19, (1, 8))
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


@pytest.mark.parametrize(
    ("shape", "extras"),
    [
        ("gpt2", {}),
        ("llama", {}),
        ("modern", {"bigram_rows": 19 * 19}),
    ],
)
def test_every_parameter_learns(build, shape, extras):
    """Catches: a part that is built but not used, such as a table that only the first layer reads."""
    model = build(shape, **extras)
    ids = torch.randint(19, (4, 25))
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert idle == []


def test_config_is_hashable_plain_data():
    """Catches: a field that a checkpoint with weights_only could not hold."""
    config = model_config("modern", vocab_size=19, context=24, layers=1, heads=6, width=48)
    assert all(isinstance(value, int | float | str | bool) for value in vars(config).values())
    assert ModelConfig(**vars(config)) == config
