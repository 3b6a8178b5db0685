"""Each test names the bug that it catches."""

import math

import pytest
import torch

from labkit.errors import LabError
from stage1_foundations.gpt.byte_pair_encoding import BytePairEncoding
from stage1_foundations.gpt.character_tokenizer import CharacterTokenizer
from stage1_foundations.gpt.model import GPT
from stage1_foundations.gpt.model_config import SHAPES, model_config
from stage1_foundations.gpt.sampling import Sampling, draw, filter_logits, generate, generate_ids

GREEDY = Sampling(tokens=60, temperature=0)
INFINITE = math.inf


class Recital(GPT):
    """A model that wants to say one text, token by token, whatever the prompt."""

    def __init__(self, script: list[int], vocab_size: int) -> None:
        super().__init__(model_config("gpt2", vocab_size=vocab_size, context=512, layers=1, heads=1, width=2))
        self.script = iter(script)

    def forward(self, ids, cache=None, last_only=False):
        cache.advance(ids)
        logits = torch.zeros(1, 1, self.config.vocab_size)
        logits[0, 0, next(self.script)] = 1.0
        return logits


def recite(text: str, tokenizer, stop: tuple[str, ...] = ()) -> list[str]:
    """The pieces in which a text arrives."""
    script = tokenizer.encode(text)
    model = Recital(script, tokenizer.vocab_size)
    sampling = Sampling(tokens=len(script), temperature=0, stop=stop)
    return list(generate(model, tokenizer, text[0], sampling))


def uncached_greedy(model: GPT, prompt: list[int], count: int) -> list[int]:
    """Greedy decoding without a cache; when the window is full, its second half is read again."""
    ids, start = list(prompt), max(0, len(prompt) - model.config.context)
    for _ in range(count):
        if len(ids) - start > model.config.context:
            start = len(ids) - model.config.context // 2
        ids.append(int(model(torch.tensor([ids[start:]]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("length", [1, 5, 23, 24, 30])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_greedy_is_the_argmax_also_beyond_the_context(build, shape, length):
    """Catches: a window that loses its last token when it slides, a cache that is not emptied."""
    model = build(shape)
    prompt = torch.randint(19, (1, length))
    drawn = torch.cat(list(generate_ids(model, prompt, GREEDY)), dim=1)[0].tolist()
    assert drawn == uncached_greedy(model, prompt[0].tolist(), 60)


def test_rows_of_a_batch_are_independent(build):
    """Catches: one cache for all rows."""
    model = build("modern")
    prompts = torch.randint(19, (3, 7))
    together = torch.cat(list(generate_ids(model, prompts, GREEDY)), dim=1)
    for prompt, row in zip(prompts, together, strict=True):
        assert torch.equal(torch.cat(list(generate_ids(model, prompt[None], GREEDY)), dim=1)[0], row)


def test_the_smallest_context_works(build):
    """Catches: a window of zero tokens when the context is 1."""
    model = build("gpt2", context=1)
    assert len(list(generate_ids(model, torch.zeros(1, 3, dtype=torch.long), GREEDY))) == 60


def test_a_seed_repeats_and_leaves_the_global_generator_alone(build):
    """Catches: a seed that is ignored, or samples during training that change its dropout."""
    model, prompt = build(), torch.zeros(1, 1, dtype=torch.long)

    def text(seed: int | None) -> list[int]:
        return [int(token) for token in generate_ids(model, prompt, Sampling(tokens=40, seed=seed))]

    before = torch.get_rng_state()
    first, again, other = text(1), text(1), text(2)
    assert torch.equal(before, torch.get_rng_state())
    assert first == again and first != other
    assert text(None) != text(None)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_divides_the_logits(temperature):
    """Catches: a temperature that multiplies, or that acts on probabilities."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    rows = 40_000
    generator = torch.Generator().manual_seed(1)
    tokens = draw(logits.expand(rows, 4), Sampling(temperature=temperature), generator)
    frequency = torch.bincount(tokens[:, 0], minlength=4) / rows
    expected = (logits / temperature).softmax(0)
    assert (frequency - expected).abs().max() < 4 * 0.5 / rows**0.5  # four deviations of a share


def test_temperature_zero_is_greedy_without_chance():
    """Catches: a division by zero; the second best at a tie of bfloat16."""
    logits = torch.tensor([[0.0, 3.0, 2.999], [5.0, 1.0, 1.0]])
    assert draw(logits, Sampling(temperature=0)).tolist() == [[1], [0]]
    assert draw(logits.bfloat16(), Sampling(temperature=0))[1].item() == 0


def test_top_k_by_hand():
    """Catches: the k worst, k - 1 tokens, one threshold for all rows."""
    logits = torch.tensor([[1.0, 4.0, 2.0, 3.0], [9.0, 6.0, 7.0, 8.0]])
    expected = [[-INFINITE, 4.0, -INFINITE, 3.0], [9.0, -INFINITE, -INFINITE, 8.0]]
    assert filter_logits(logits, top_k=2).tolist() == expected
    assert torch.equal(filter_logits(logits, top_k=0), logits)
    assert torch.equal(filter_logits(logits, top_k=99), logits)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.01, [1]), (0.49, [1]), (0.51, [1, 3]), (0.79, [1, 3]), (0.81, [0, 1, 3]), (1.0, [0, 1, 2, 3])],
)
def test_top_p_by_hand(top_p, kept):
    """Catches: the token that crosses p dropped, the best token dropped, masks in sorted order."""
    probability = torch.tensor([[0.15, 0.50, 0.05, 0.30], [0.15, 0.50, 0.05, 0.30]])
    filtered = filter_logits(probability.log(), top_p=top_p)
    for row in filtered:
        assert row.isfinite().nonzero().flatten().tolist() == kept
    assert torch.allclose(filtered[0, kept], probability.log()[0, kept])


def test_top_p_holds_after_top_k_and_temperature():
    """Catches: top-p on the flat distribution, before the temperature has sharpened it."""
    logits = torch.tensor([0.40, 0.35, 0.25]).log().expand(2000, 3)
    sharp = Sampling(temperature=0.1, top_p=0.7)  # 0.79 of the sharpened mass is on the first token
    assert set(draw(logits, sharp).flatten().tolist()) == {0}
    assert set(draw(logits, Sampling(temperature=1.0, top_p=0.7)).flatten().tolist()) == {0, 1}
    assert set(draw(logits, Sampling(temperature=1.0, top_k=2)).flatten().tolist()) == {0, 1}


LETTERS = CharacterTokenizer.train("abcdefghijklmnopqrstuvwxyz .:\nABR不能关羽")
BYTES = BytePairEncoding.train("aab", vocab_size=256)  # every byte a token
SENTENCE = "naïve 不能同日生 👩‍👧 end"


def test_pieces_join_to_the_whole():
    """Catches: a last piece that is never sent, or one that is sent twice."""
    assert "".join(recite("once upon a time", LETTERS)) == "once upon a time"
    assert len(recite("once upon a time", LETTERS)) >= 16  # and they arrive one by one, not at the end


def test_characters_split_over_tokens_arrive_whole():
    """Catches: the replacement character in the terminal, where one Chinese character is three tokens."""
    pieces = recite(SENTENCE, BYTES)
    assert "".join(pieces) == SENTENCE
    assert not any("\ufffd" in piece for piece in pieces)
    assert len(pieces) > 10


def test_a_text_that_ends_inside_a_character_is_not_lost():
    """Catches: a broken last character that takes the text before it along."""
    script = BYTES.encode("ab不")[:-1]
    pieces = list(generate(Recital(script, 256), BYTES, "a", Sampling(tokens=len(script), temperature=0)))
    assert "".join(pieces).startswith("ab") and "".join(pieces) == BYTES.decode(script)


@pytest.mark.parametrize("tokenizer", [LETTERS, BYTES], ids=["characters", "bytes"])
@pytest.mark.parametrize(
    ("text", "stop", "shown"),
    [
        ("hello END of it", (" of",), None),
        ("hello.\nB: more", ("\nB:",), "hello."),
        ("aaaab tail", ("aab",), "aa"),
        ("abababc", ("ababc",), "ab"),
        ("never here", ("xyz",), "never here"),
        ("ends with the star", ("start",), "ends with the star"),
        ("two stops", ("ps", "st"), "two "),
        ("say\n不能 say", ("\n不",), "say"),
        ("say 不能 say", ("能",), "say 不"),
    ],
)
def test_stop_strings_are_never_shown(tokenizer, text, stop, shown):
    """Catches: a stop string, or its first characters, in the output when it arrives in several tokens."""
    text = text.replace("END", "AB")
    shown = text.split(stop[0])[0] if shown is None else shown
    pieces = recite(text, tokenizer, stop)
    assert "".join(pieces) == shown
    so_far = ""
    for piece in pieces:  # what is on the terminal cannot be taken back
        so_far += piece
        assert shown.startswith(so_far)


def test_an_empty_prompt_works(build):
    """Catches: a tensor without tokens."""
    tokenizer = CharacterTokenizer.train("abcdefghijklmnopqrs")
    assert len("".join(generate(build(), tokenizer, "", Sampling(tokens=5, seed=1)))) == 5


@pytest.mark.parametrize("changes", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_k": -1}])
def test_impossible_settings_are_one_clear_line(changes):
    """Catches: an error from inside torch, in the middle of a text."""
    with pytest.raises(LabError):
        Sampling(**changes)


def test_sample_command(cli, corpus_file, runs):
    """Catches: a sample that ignores its options, or shows something else than the checkpoint's text."""
    code, _, error = cli("sample", "--tokens", 5)
    assert code == 2 and "no trained model yet" in error
    train = ["--steps", 4, "--eval-every", 4, "--dtype", "fp32"]
    assert cli("train", "--preset", "smoke", "--data", corpus_file, *train)[0] == 0
    options = ["--tokens", 40, "--prompt", "the king", "--device", "cpu"]
    first, again, other = (cli("sample", *options, "--seed", seed) for seed in (1, 1, 2))
    assert first[0] == 0 and first[1].startswith("the king") and len(first[1]) >= 40
    assert first[1] == again[1] != other[1]
    code, _, error = cli("sample", *options, "--prompt", "THE KING")
    assert code == 2 and error.startswith("error: character 'T'") and "\n  try: " in error
