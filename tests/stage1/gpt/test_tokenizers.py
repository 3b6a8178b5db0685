"""Each test names the bug that it catches. The oracle is Hugging Face's `tokenizers`, matched exactly."""

import json
import os
import random
import time
from collections import Counter

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

import data
from labkit.errors import LabError
from stage1_foundations.gpt.bench_bpe import (
    bench_bpe,
    merges_of_reference,
    printable_merges,
    train_reference,
)
from stage1_foundations.gpt.byte_pair_encoding import (
    ALPHABET,
    BytePairEncoding,
    count_pairs,
    merge_pair,
    merge_word,
    pairs_of,
    printable,
)
from stage1_foundations.gpt.character_tokenizer import CharacterTokenizer
from stage1_foundations.gpt.tokenizer import (
    HuggingFaceTokenizer,
    build_tokenizer,
    characters_per_token,
    tokenizer_from_dict,
)

FOX = "the quick brown fox, the lazy dog: 不能同日生，但愿同日死。不能 the 123 1234 isn't it's we'll\n" * 3
FOREIGN = [
    "👩‍👩‍👧 naïve café, ﬁne — “quoted” … e\u0301 ½ ٣ Ⅷ",
    "line\r\n\r\n  two\t\ttabs \n \n\n end   ",
    "关羽字云长，本字寿长，河东解良人也。\u3000\u3000却说",
    "def f(x):\n\tif x != 0x1F:  # 1_000\n\t\treturn {'a': [x**2]}\n",
    "it's I'LL they've 'twas ''s 's'",
    "\x00\x1c\x1d\x85\xa0\u2028\u200b\ufeff \x7f",
    " ",
    "",
]
assigned_text = st.text(st.characters(exclude_categories=("Cs", "Cn")))  # what both Unicode tables know


def assert_same_tokenizer(ours: BytePairEncoding, reference: tokenizers.Tokenizer) -> None:
    """Same merges in the same order, same tokens under the same ids."""
    assert printable_merges(ours) == merges_of_reference(reference)
    assert {printable(token): i for i, token in enumerate(ours.tokens)} == reference.get_vocab()


@pytest.fixture(scope="module")
def fox() -> tuple[BytePairEncoding, tokenizers.Tokenizer]:
    """Both tokenizers, trained on a few mixed lines."""
    return BytePairEncoding.train(FOX, 300), train_reference(FOX, 300)


# --- byte pair encoding against the library ---


@pytest.mark.parametrize(
    ("name", "vocab_size", "min_frequency"),
    [
        ("tiny-shakespeare", 300, 2),
        ("tiny-shakespeare", 4096, 2),
        ("tiny-shakespeare", 8192, 20),
        ("sanguo", 1000, 0),
        ("sanguo", 4096, 2),
        ("sanguo", 6000, 10),
    ],
)
def test_real_corpora_give_the_library_s_merges_and_ids(name: str, vocab_size: int, min_frequency: int):
    """Catches: ties broken another way; counts not updated around a merge; min_frequency off by one."""
    text = data.load_text(name)[: 60_000 if name == "sanguo" else 200_000]
    ours = BytePairEncoding.train(text, vocab_size, min_frequency)
    reference = train_reference(text, vocab_size, min_frequency)
    assert_same_tokenizer(ours, reference)
    assert ours.encode(text) == reference.encode(text).ids
    for other in FOREIGN:
        assert ours.encode(other) == reference.encode(other).ids


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(st.sampled_from("aaab c\n'1好"), min_size=1, max_size=120),
    vocab_size=st.integers(256, 300),
    min_frequency=st.integers(0, 4),
)
def test_ties_and_overlaps_as_in_the_library(text: str, vocab_size: int, min_frequency: int):
    """Catches: tie-breaks by first appearance; "aaa" counted once; a stale count believed."""
    ours = BytePairEncoding.train(text, vocab_size, min_frequency)
    reference = train_reference(text, vocab_size, min_frequency)
    assert_same_tokenizer(ours, reference)
    assert ours.encode(text[::-1]) == reference.encode(text[::-1]).ids


@settings(max_examples=300, deadline=None)
@given(text=assigned_text | st.text(st.sampled_from("the fox.不能同日\r\n\t '12sld"), max_size=60))
def test_any_text_is_encoded_as_by_the_library(fox, text: str):
    """Catches: a pre-tokenisation rule that treats some letters, digits or white space differently."""
    ours, reference = fox
    assert ours.encode(text) == reference.encode(text).ids


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_any_text_survives_the_round_trip(fox, text: str):
    """Catches: characters lost between pieces; bytes decoded token by token."""
    assert fox[0].decode(fox[0].encode(text)) == text


def test_alphabet_is_the_library_s():
    """Catches: a byte that has the wrong printable character, or ids that do not follow their order."""
    assert set(ALPHABET.values()) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert list(ALPHABET.values()) == sorted(ALPHABET.values())
    assert printable(b" the\n") == "ĠtheĊ"


# --- its parts ---


def test_count_pairs_by_hand():
    """Catches: words counted once instead of by frequency; overlapping pairs skipped."""
    counts, where = count_pairs(["aaab", "ab"], [5, 2])
    assert counts == {"aa": 10, "ab": 7}
    assert set(where["aa"]) == {0}
    assert set(where["ab"]) == {0, 1}


@settings(max_examples=200, deadline=None)
@given(table=st.dictionaries(st.text("abc", min_size=1, max_size=12), st.integers(1, 5)), choice=st.data())
def test_merge_pair_keeps_the_counts_true(table: dict[str, int], choice):
    """Catches: neighbours of a merged pair whose counts go stale, above all where two merged pairs touch."""
    words, frequencies = list(table), list(table.values())
    counts, where = count_pairs(words, frequencies)
    for new in "XYZ":
        pairs = sorted(pair for pair, count in counts.items() if count > 0)
        if not pairs:
            return
        pair = choice.draw(st.sampled_from(pairs))
        expected = [word.replace(pair, new) for word in words]
        made = merge_pair(pair, new, words, frequencies, counts, where)
        recount = Counter()
        for word, frequency in zip(expected, frequencies, strict=True):
            for neighbours in pairs_of(word):
                recount[neighbours] += frequency
        assert words == expected
        assert {pair: count for pair, count in counts.items() if count} == recount
        assert made == {pair for pair in recount if new in pair}
        for pair in recount:
            assert set(where[pair]) >= {n for n, word in enumerate(words) if pair in word}


def test_merge_word_takes_the_earliest_merge_not_the_longest():
    """Catches: greedy longest match; merges applied from left to right instead of by rank."""
    token_of = {"bc": "1", "ab": "2", "cd": "3", "2c": "4"}  # digits as tokens, in the order learnt
    pair_of = {token: pair for pair, token in token_of.items()}
    assert merge_word("abcd", token_of, pair_of) == "a1d"
    assert merge_word("abxabcd", token_of, pair_of) == "2xa1d"
    assert merge_word("aaa", {"aa": "1"}, {"1": "aa"}) == "1a"
    assert merge_word("", token_of, pair_of) == ""


def test_text_without_spaces_takes_seconds(fox):
    """Catches: work quadratic in the length of a piece, which hangs on DNA, base64 or an unspaced script."""
    word = "".join(random.Random(0).choices("ACGT", k=200_000))
    start = time.perf_counter()
    tokenizer = BytePairEncoding.train(word, 1024)
    assert tokenizer.decode(tokenizer.encode(word)) == word
    assert time.perf_counter() - start < 12  # 0.4 s on a quiet machine, a minute when a word is cut per merge
    assert fox[0].encode(word) == fox[1].encode(word).ids


def test_vocabulary_ends_where_pairs_end():
    """Catches: a crash, or merges of pairs that do not exist, when a text is too small for the vocabulary."""
    assert BytePairEncoding.train("abab abab", 5000).vocab_size == 256 + 2  # "ab" and "abab"
    plain = BytePairEncoding.train("abab", 256)
    assert (plain.vocab_size, plain.merges, plain.decode(plain.encode("好"))) == (256, [], "好")


def test_progress_reaches_the_number_of_merges():
    """Catches: a progress bar that stays below its end."""
    seen = []
    tokenizer = BytePairEncoding.train(FOX, 400, progress=seen.append)
    assert len(seen) > 1
    assert seen[-1] == len(tokenizer.merges)


def test_half_a_character_decodes_to_the_replacement_sign():
    """Catches: streaming that dies in the middle of a Chinese character."""
    plain = BytePairEncoding()
    ids = plain.encode("好")
    assert plain.decode(ids[:2]) == "\ufffd"
    assert plain.decode(ids) == "好"


@pytest.mark.parametrize("wrong", [-1, 256])
def test_foreign_ids_are_named(wrong: int):
    """Catches: an id from another model that becomes text silently (-1 is a valid index of a list)."""
    for tokenizer in (BytePairEncoding(), CharacterTokenizer.train("abc")):
        with pytest.raises(LabError, match=f"token id {wrong} "):
            tokenizer.decode([0, wrong])


@pytest.mark.parametrize(("text", "vocab_size"), [("", 300), ("abc", 255), ("abc", -1), ("abc", 2_000_000)])
def test_bad_training_input_is_one_clear_error(text: str, vocab_size: int):
    """Catches: a traceback, or an empty tokenizer, instead of a message."""
    with pytest.raises(LabError):
        BytePairEncoding.train(text, vocab_size)


@pytest.mark.parametrize(
    "merges", [None, [[97]], [["x", "y"]], [[97, 256]], [[0, -1]], [[1, 2], [1, 2]], [[1, 2, 3]], 7]
)
def test_damaged_merges_are_refused(merges: object):
    """Catches: a truncated checkpoint that yields a tokenizer with wrong ids."""
    with pytest.raises(LabError):
        tokenizer_from_dict({"kind": "bpe", "merges": merges})


def test_lone_surrogates_are_refused_by_all(fox):
    """Catches: UnicodeEncodeError with a traceback, for a prompt typed in a broken terminal."""
    wrapped = HuggingFaceTokenizer(fox[1].to_str())
    for tokenizer in (fox[0], wrapped, CharacterTokenizer.train("abc")):
        with pytest.raises(LabError, match=r"U\+D83D"):
            tokenizer.encode("ab\ud83d")


# --- characters ---


@settings(max_examples=100, deadline=None)
@given(text=st.text(min_size=1))
def test_characters_round_trip(text: str):
    """Catches: a lookup table that mixes up code points and UTF-16 units."""
    tokenizer = CharacterTokenizer.train(text)
    ids = tokenizer.encode(text)
    assert ids == [sorted(set(text)).index(character) for character in text]
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(iter(ids)) == text


@pytest.mark.parametrize("unknown", ["b", "d", "\x00", "好", "😀", "\U0010ffff"])
def test_unknown_character_is_named(unknown: str):
    """Catches: an unknown character that becomes id -1 or the last character, inside or past the table."""
    with pytest.raises(LabError, match=f"U\\+{ord(unknown):04X}") as caught:
        CharacterTokenizer.train("ac").encode("ca" + unknown + "a")
    assert repr(unknown) in caught.value.message
    assert "BPE" in caught.value.try_next


@pytest.mark.parametrize("characters", ["", "aba", None, 5])
def test_damaged_characters_are_refused(characters: object):
    """Catches: a description whose ids would be ambiguous."""
    with pytest.raises(LabError):
        tokenizer_from_dict({"kind": "character", "characters": characters})


# --- the common interface ---


def test_every_tokenizer_survives_json(fox):
    """Catches: a checkpoint that cannot be read back, or comes back with other ids."""
    kinds = [CharacterTokenizer.train(FOX), fox[0], HuggingFaceTokenizer(fox[1].to_str())]
    for tokenizer in kinds:
        again = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
        assert type(again) is type(tokenizer)
        assert again.vocab_size == tokenizer.vocab_size
        assert again.encode(FOX) == tokenizer.encode(FOX)
        assert again.decode(again.encode(FOX)) == FOX


def test_build_tokenizer_by_name():
    """Catches: a kind that is mapped to the wrong class, or an unknown one that is ignored."""
    assert isinstance(build_tokenizer("character", FOX), CharacterTokenizer)
    assert build_tokenizer("bpe", FOX, 300).vocab_size == 300
    with pytest.raises(LabError, match="words"):
        build_tokenizer("words", FOX)
    for damaged in ({"kind": "words"}, {}, None, {"kind": ["bpe"]}):
        with pytest.raises(LabError):
            tokenizer_from_dict(damaged)


def test_characters_per_token():
    """Catches: bytes counted for characters; the fraction upside down."""
    assert characters_per_token(CharacterTokenizer.train("好的"), "好的好") == 1
    assert characters_per_token(BytePairEncoding(), "好的") == pytest.approx(1 / 3)
    assert characters_per_token(BytePairEncoding([(64, 65)]), "abab") == 2  # ids of "a" and "b"
    with pytest.raises(LabError):
        characters_per_token(BytePairEncoding(), "")


def test_published_tokenizer_from_a_file(tmp_path, fox):
    """Catches: start tokens added behind the user's back; special tokens dropped when decoding."""
    reference = tokenizers.Tokenizer.from_str(fox[1].to_str())
    reference.add_special_tokens(["<|start|>"])
    reference.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|start|> $A", special_tokens=[("<|start|>", 300)]
    )
    reference.save(str(tmp_path / "tokenizer.json"))
    wrapped = HuggingFaceTokenizer.from_file(tmp_path)
    assert wrapped.encode("the fox") == fox[0].encode("the fox")
    assert wrapped.token_id("<|start|>") == wrapped.vocab_size - 1
    assert wrapped.decode(wrapped.encode("<|start|>the fox")) == "<|start|>the fox"
    assert wrapped.token_id("<|no|>") is None


def test_published_tokenizer_missing_or_damaged(tmp_path):
    """Catches: a traceback for a wrong path or half a file."""
    (tmp_path / "half.json").write_text('{"version": "1.0", "mod')
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name in ("absent.json", "half.json", "binary.json", "."):
        with pytest.raises(LabError) as caught:
            HuggingFaceTokenizer.from_file(tmp_path / name)
        assert "\n" not in caught.value.message


def test_bench_compares_like_with_like(monkeypatch):
    """Catches: a bench that reports equality without looking, or leaves the library's setting changed."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "sometimes")
    result = bench_bpe(FOX, 300)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "sometimes"
    assert json.loads(json.dumps(result)) == result
    assert (result["merges_equal"], result["encodings_equal"], result["vocab_size"]) == (True, True, 300)

    monkeypatch.setattr(BytePairEncoding, "encode", lambda self, text: [0] * len(text))
    assert bench_bpe(FOX, 300)["encodings_equal"] is False
