"""Each test names the bug that it catches. The oracle is Hugging Face's `transformers`."""

import json
from pathlib import Path

import pytest
import tokenizers
import torch

import data
from labkit.errors import LabError
from stage1_foundations.gpt.pretrained import SMOLLM2, load_pretrained
from stage1_foundations.gpt.sampling import Sampling, generate_ids

PROMPT = "Photosynthesis is the process by which"


def save_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer.json of 256 tokens."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=256, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["a b"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


def save_random(model: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """Give a transformers model weights that no part can hide behind, and save it in their layout."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    save_tokenizer(folder)
    return model


def tiny_llama(folder: Path, **changes) -> torch.nn.Module:
    """A random Llama with three query heads for every key head, unusual eps and rope base."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "vocab_size": 256, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
        "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-3,
        "tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    }  # fmt: skip
    return save_random(LlamaForCausalLM(LlamaConfig(**{**sizes, **changes})), folder)


def tiny_gpt2(folder: Path, **changes) -> torch.nn.Module:
    """A random GPT-2 with an unusual eps and an odd number of heads."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {
        "vocab_size": 256, "n_embd": 48, "n_layer": 3, "n_head": 3, "n_positions": 64,
        "layer_norm_epsilon": 1e-3,
    }  # fmt: skip
    return save_random(GPT2LMHeadModel(GPT2Config(**{**sizes, **changes})), folder)


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (tiny_llama, {}),
        (tiny_llama, {"tie_word_embeddings": False}),
        (tiny_llama, {"num_key_value_heads": 6}),
        (tiny_gpt2, {}),
        (tiny_gpt2, {"n_inner": 100}),
    ],
    ids=["llama", "llama-untied", "llama-no-groups", "gpt2", "gpt2-inner"],
)
@torch.no_grad()
def test_random_weights_give_transformers_logits(tmp_path, make, changes):
    """Catches: gate and up exchanged, q and k exchanged, a matrix not transposed, a default eps or base."""
    theirs = make(tmp_path, **changes)
    ours, _ = load_pretrained(tmp_path)
    ids = torch.randint(256, (2, 64))
    expected = theirs(ids).logits
    assert expected.std() > 0.3  # the comparison below would be empty for logits near zero
    assert (ours(ids) - expected).abs().max() < 1e-5 * max(1.0, expected.abs().max().item())
    assert ours.parameter_count() == theirs.num_parameters()


@torch.no_grad()
def test_a_shorter_context_gives_the_same_logits(tmp_path):
    """Catches: a position table that is stretched instead of cut."""
    for name, make in (("llama", tiny_llama), ("gpt2", tiny_gpt2)):
        make(tmp_path / name)
        long, short = (load_pretrained(tmp_path / name, context=context)[0] for context in (None, 16))
        ids = torch.randint(256, (1, 16))
        assert short.config.context == 16
        assert torch.equal(short(ids), long(ids))


@torch.no_grad()
def test_bfloat16_stays_near_float32(tmp_path):
    """Catches: rotary tables in bfloat16, whose angles are wrong after a few dozen positions."""
    tiny_llama(tmp_path)
    exact, rounded = load_pretrained(tmp_path)[0], load_pretrained(tmp_path, torch.bfloat16)[0]
    ids = torch.randint(256, (1, 64))
    assert rounded.rope_cos.dtype == torch.float32
    difference = (rounded(ids).float() - exact(ids)).square().mean().sqrt()
    assert difference / exact(ids).std() < 0.03  # 8 bits of mantissa through three blocks


def change_config(folder: Path, **changes) -> None:
    """Edit config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "mamba"}, "'mamba' model"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"head_dim": 16}, "head_dim 16"),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}},
            "rope_type 'llama3'",
        ),
    ],
)
def test_models_of_another_make_are_refused(tmp_path, changes, words):
    """Catches: weights that load and give nonsense, because a part of the model is left out in silence."""
    tiny_llama(tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(LabError, match=words):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(tmp_path, name):
    """Catches: a FileNotFoundError from inside a library."""
    tiny_gpt2(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(LabError, match=f"has no {name}"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_truncated_file_is_one_clear_line(tmp_path, name):
    """Catches: a traceback after a download that broke off."""
    tiny_gpt2(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(LabError):
        load_pretrained(tmp_path)


@pytest.mark.assets
@torch.no_grad()
def test_smollm2_equals_transformers_and_speaks_english():
    """Catches: what small random weights forgive: the real base, norms, 30 layers, tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = data.fetch(SMOLLM2)
    ours, tokenizer = load_pretrained(SMOLLM2, context=128)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    text = (
        "Machine learning is a field of study in which computers learn from examples. 你好！ x = [1, 2, 3]\n"
    )
    ids = tokenizer.encode(text)
    assert ids == AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    # 30 layers of float32 in another order of sums; logits reach 30, so this is 3e-6 of them
    assert (ours(torch.tensor([ids])) - theirs(torch.tensor([ids])).logits).abs().max() < 1e-4

    prompt = torch.tensor([tokenizer.encode(PROMPT)])
    drawn = torch.cat(list(generate_ids(ours, prompt, Sampling(tokens=20, temperature=0))), dim=1)[0].tolist()
    expected = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False
    )
    assert drawn == expected[0, prompt.shape[1] :].tolist()
    continuation = tokenizer.decode(drawn)
    assert "sunlight" in continuation and continuation.isascii() and len(continuation.split()) >= 12
