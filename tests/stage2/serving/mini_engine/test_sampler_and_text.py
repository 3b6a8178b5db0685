"""Drawing tokens, and turning them into text. Each test names the bug that it catches."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stage2_rag_finetune_deploy.serving.mini_engine import SamplingParams, sampler
from stage2_rag_finetune_deploy.serving.mini_engine.detokenizer import Detokenizer, held_back
from stage2_rag_finetune_deploy.serving.mini_engine.sampler import draw, keep, sample, uniform


def one(value):
    return torch.tensor([[float(value)]])


@pytest.mark.parametrize(("top_k", "top_p", "kept"), [
    (6, 1.0, [0.4, 0.3, 0.15, 0.1, 0.05]), (2, 1.0, [0.4, 0.3]), (6, 0.7, [0.4, 0.3]), (6, 0.71, [0.4, 0.3, 0.15]),
    (6, 0.01, [0.4]), (2, 0.6, [0.4, 0.3]), (2, 0.5, [0.4]), (1, 0.9, [0.4]),
])  # fmt: skip
def test_top_k_then_top_p_by_hand(top_k, top_p, kept):
    """Catches: top-p over what top-k has left out, the token that crosses p lost, nothing kept at a small p."""
    probs = torch.tensor([[0.4, 0.3, 0.15, 0.1, 0.05]], dtype=torch.float64)
    found, enough = keep(probs, one(top_k).double(), one(top_p).double())
    assert found[0][found[0] > 0].tolist() == kept and bool(enough)


def test_what_lies_below_the_largest_is_looked_up_when_it_is_wanted(monkeypatch):
    """Catches: top-p over the first 256 of 49,152 tokens only, where the distribution is flat."""
    logits = torch.zeros(1, 2000)
    one_row = [SimpleNamespace(params=SamplingParams(top_p=0.9))]
    monkeypatch.setattr(sampler, "CANDIDATES", (4,))
    drawn = {draw(logits, one_row, [chance / 50])[0] for chance in range(50)}
    assert len(drawn) == 50
    assert not keep(torch.full((1, 4), 0.0005), one(2000), one(0.9))[1]


def test_frequencies_follow_the_probabilities():
    """Catches: temperature on the wrong side of the fraction, chance used twice, an end of the range never drawn."""
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    for temperature in (0.5, 1.0, 2.0):
        row = [SimpleNamespace(params=SamplingParams(temperature=temperature))]
        drawn = torch.tensor([draw(logits, row, [(i + 0.5) / 4000])[0] for i in range(4000)])
        expected = (logits[0] / temperature).softmax(-1)
        assert (torch.bincount(drawn, minlength=4) / 4000 - expected).abs().max() < 2 / 4000


def test_uniform_is_uniform_and_repeats():
    """Catches: neighbouring seeds or positions that give neighbouring numbers; a number of 1."""
    numbers = torch.tensor([uniform(seed, place) for seed in range(40) for place in range(100)])
    assert numbers.min() >= 0 and numbers.max() < 1 and len(numbers.unique()) == 4000
    assert (torch.histc(numbers, 10, 0, 1) - 400).abs().max() < 80  # 4 standard deviations of 19
    grid = numbers.view(40, 100)
    assert torch.corrcoef(grid[:, :2].T)[0, 1].abs() < 0.5 and torch.corrcoef(grid[:2])[0, 1].abs() < 0.4
    assert uniform(7, 3) == uniform(7, 3) and uniform(-1, 0) != uniform(1, 0)


def test_each_row_gets_what_it_asked_for():
    """Catches: parameters of one row used for another."""
    logits = torch.tensor([[0.0, 9.0, 1.0], [5.0, 0.0, 4.9], [1.0, 1.1, 1.2]])
    wanted = [SamplingParams(temperature=0), SamplingParams(temperature=1.0, top_k=1), SamplingParams(temperature=0)]
    rows = [SimpleNamespace(params=params, output_ids=[]) for params in wanted]
    assert sample(logits, rows, [1, 2, 3]) == [1, 0, 2]
    assert sample(logits.bfloat16(), rows, [1, 2, 3]) == [1, 0, 2]


def pieces_of(tokenizer, ids, stops=()):
    """What a stream would send for these tokens, and the detokenizer."""
    text, pieces = Detokenizer(tokenizer, stops), []
    for token in ids:
        text.add(token)
        if text.stopped:
            break
        pieces.append(text.new_text(final=False))
    text.finish()
    return [*pieces, text.new_text(final=True)], text


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 257), max_size=40), st.text(max_size=12))
def test_pieces_join_to_the_text_and_no_character_is_split(tokenizer, noise, words):
    """Catches: a character lost, given twice, or given as U+FFFD before its last byte has come."""
    for ids in (noise, tokenizer(words)["input_ids"], tokenizer("你好🙂" + words)["input_ids"] + noise):
        pieces, text = pieces_of(tokenizer, ids)
        assert "".join(pieces) == text.text == tokenizer.decode(ids, skip_special_tokens=True)
    pieces, _ = pieces_of(tokenizer, tokenizer("你好🙂")["input_ids"])
    assert [piece for piece in pieces if piece] == ["你", "好", "🙂"]


@settings(max_examples=150, deadline=None)
@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_nothing_of_a_stop_string_is_given_out(tokenizer, words, stops):
    """Catches: half a stop string in a stream, a text cut at a later stop, text held back and then lost."""
    pieces, text = pieces_of(tokenizer, tokenizer(words)["input_ids"], stops)
    ends = [words.index(stop) + len(stop) for stop in stops if stop in words]
    if ends:
        first = min(ends)  # the stop that is complete first ends the text
        starts = [words.find(stop) for stop in stops if stop in words and words.index(stop) + len(stop) == first]
        assert "".join(pieces) == words[: min(starts)] and text.stopped in stops
    else:
        assert "".join(pieces) == words and text.stopped is None


@pytest.mark.parametrize(("text", "stops", "count"), [
    ("I am. \n", ["\n\nUser"], 1), ("I am.\n\nUs", ["\n\nUser"], 4), ("I am", ["\n\nUser"], 0), ("", ["x"], 0),
    ("aab", ["aabaab", "bb"], 3), ("xaa", ["aaab"], 2), ("b", ["b"], 0), ("ab", [], 0),
])  # fmt: skip
def test_held_back_by_hand(text, stops, count):
    """Catches: the shortest beginning taken in place of the longest, text held back for nothing."""
    assert held_back(text, stops) == count


def test_special_tokens_are_not_text(tokenizer):
    """Catches: <|im_end|> in an answer."""
    pieces, _ = pieces_of(tokenizer, [*tokenizer("ok")["input_ids"], tokenizer.eos_token_id])
    assert "".join(pieces) == "ok"
