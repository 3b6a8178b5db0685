"""Each test names the bug that it catches."""

import pytest

from labkit.errors import LabError
from stage2_rag_finetune_deploy.chunking.packing import fit, pack, word_offsets
from stage2_rag_finetune_deploy.chunking.sentences import sentence_offsets
from stage2_rag_finetune_deploy.chunking.sizes import TokenCounter, load_counter
from stage2_rag_finetune_deploy.chunking.spans import chunk_id

COUNTER = TokenCounter()


def said(text, spans):
    """What the spans say, without the white space around it."""
    return [text[start:end].strip() for start, end in spans]


def test_pack_by_hand():
    """Catches: a chunk closed too early or too late, an overlap of the wrong pieces."""
    text = "aaaa bbbb cccc dddd eeee ffff "
    pieces = word_offsets(text, 0, len(text))
    assert COUNTER.sizes(["aaaa", "aaaa bbbb", "aaaa bbbb cccc"]) == [2, 3, 4]  # less than the sum of the words
    assert said(text, pack(text, pieces, 3, 0, COUNTER)) == ["aaaa bbbb", "cccc dddd", "eeee ffff"]
    assert said(text, pack(text, pieces, 4, 2, COUNTER)) == ["aaaa bbbb cccc", "cccc dddd eeee", "eeee ffff"]
    assert said(text, pack(text, pieces, 4, 1, COUNTER)) == ["aaaa bbbb cccc", "dddd eeee ffff"]
    assert pack("", [], 4, 0, COUNTER) == []


def test_a_large_piece_does_not_swallow_the_overlap_and_never_ends():
    """Catches: an endless loop where the overlap leaves no room for the next piece."""
    text = "aaaa bbbb " + "c" * 60 + " dddd"
    chunks = said(text, pack(text, word_offsets(text, 0, len(text)), 16, 8, COUNTER))
    assert chunks == ["aaaa bbbb", "c" * 60, "dddd"]


def test_fit_cuts_at_the_gentlest_place():
    """Catches: a sentence cut inside a word where a comma was near."""
    text = "one two three four, five six seven eight, nine ten eleven twelve"
    fitted = [text[start:end] for (start, end), _ in fit(text, [(0, len(text))], 8, COUNTER)]
    assert fitted == ["one two three four, ", "five six seven eight, ", "nine ten eleven twelve"]


def test_one_word_of_a_megabyte_is_cut_at_once():
    """Catches: [UNK] counted as one token; halving a giant word again and again."""
    text = "x" * 1_000_000
    chunks = pack(text, [(0, len(text))], 50, 0, COUNTER)
    assert all(COUNTER.size(text[start:end]) <= 50 for start, end in chunks) and len(chunks) < 12_000


@pytest.mark.assets
@pytest.mark.parametrize("encoder", ["minilm", "e5"])
def test_the_cap_holds_in_real_tokens(encoder):
    """Catches: sums of pieces trusted where a tokenizer makes more tokens of the whole; [UNK] as one token."""
    counter = load_counter(encoder)
    text = "The cache, 缓存不命中。 🙂🙂 naïve e.g. 3.14 " * 60 + "y" * 5000 + " end. " + "　全角　空格。" * 50
    for cap in (16, 33, 120):
        chunks = pack(text, sentence_offsets(text), cap, cap // 4, counter)
        assert max(counter.sizes([text[start:end] for start, end in chunks])) <= cap
        assert chunks[0][0] == 0 and chunks[-1][1] == len(text)
    assert counter.size("y" * 5000) >= 625


def test_sentences_by_hand():
    """Catches: a sentence that ends after "Mr.", a Chinese text without sentences, a quotation mark left behind."""
    text = 'Mr. Brown paid 3.5 pounds, e.g. in cash. "Why?" she asked. J. Smith left.\n\nA new one 他说：“好。”'
    text += "然后走了！真的吗？？是"
    assert said(text, sentence_offsets(text)) == [
        "Mr. Brown paid 3.5 pounds, e.g. in cash.", "\"Why?\" she asked.", "J. Smith left.",
        "A new one 他说：“好。”", "然后走了！", "真的吗？？", "是",
    ]  # fmt: skip


def test_chunk_id():
    """Catches: one id for two places, for two documents, or for texts that only join to the same."""
    first = chunk_id("a", 0, 5, "hello")
    assert first == chunk_id("a", 0, 5, "hello") and len(first) == 36
    others = [chunk_id("b", 0, 5, "hello"), chunk_id("a", 5, 10, "hello"), chunk_id("a", 0, 5, "hallo"),
              chunk_id("a0", 5, 5, "hello"), chunk_id("a", 0, 55, "hello"[1:])]  # fmt: skip
    assert len({first, *others}) == 6


@pytest.mark.parametrize(("cap", "overlap"), [(0, 0), (15, 0), (100, 51), (100, -1), (20, 30)])
def test_sizes_that_cannot_work(chunker, cap, overlap):
    """Catches: an endless loop or a pydantic traceback where a clear word was due."""
    with pytest.raises(LabError) as caught:
        chunker("sentence", cap, overlap)
    assert caught.value.try_next.startswith("--")
