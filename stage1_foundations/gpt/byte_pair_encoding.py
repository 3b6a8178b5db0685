"""Byte-level byte pair encoding (BPE), trained from scratch.

Idea: start from the 256 bytes, so that every text can be written. Find the two neighbouring tokens that
occur together most often, make one new token of them, and go on until the vocabulary is full. Encoding a text
later means applying the same merges in the order in which they were learnt: nothing else is stored.

    1. split_text     a text -> pieces (a word with the space before it, a number, ...); no token spans two
    2. count_pairs    pieces -> how often each pair of neighbours occurs, and in which pieces
    3. merge_pair     one pair -> one token, everywhere, updating only the counts that change
    4. learn_merges   2 once, then 3 until the vocabulary is full; a heap knows the most frequent pair
    5. merge_word     the learnt merges, applied to a new piece

A representation that makes plain Python fast: a word is a `str` whose characters are token ids (`chr(id)`).
A pair is then a string of two characters, `str.find` and `str.replace` do the searching, and comparing two
pairs as strings compares their ids, left one first.

Merges, ids and encodings equal those of Hugging Face's `tokenizers` with a ByteLevel pre-tokenizer exactly
(tests). Ties go to the pair with the lower left id, then the lower right id. That library knows the letters
of Unicode 16: text in scripts added later may be split into other pieces.

Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", algorithm 1;
Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2 (bytes, and no merge
across kinds of characters).
Read next: tokenizer.py, where the model meets it.
"""

import heapq
import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

import regex

from labkit.errors import LabError
from stage1_foundations.gpt.character_tokenizer import lone_surrogate

# GPT-2's rule: English endings; letters, numbers or signs with at most one space before them; white space.
# The last space before a word is left for that word: `\s+(?!\S)` stops one short of it.
PIECE = regex.compile(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
MAX_VOCAB = 1_000_000  # a token id must be a code point, and those end at 1,114,111
CACHED_PIECES = 1_000_000


def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable character for each byte, in the order of the token ids 0 to 255.

    Visible Latin-1 characters stand for themselves; the 68 others (space, control characters, ...) get the
    characters from U+0100 on, so that the space is shown as "Ġ" and the newline as "Ċ".
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


ALPHABET = byte_alphabet()
ID_OF_BYTE = bytes(list(ALPHABET).index(byte) for byte in range(256))  # a table for bytes.translate


def printable(token: bytes) -> str:
    """A token's bytes in GPT-2's notation, as in `tokenizer.json`: b" the" -> "Ġthe"."""
    return "".join(ALPHABET[byte] for byte in token)


def split_text(text: str) -> list[str]:
    """The pieces of a text, in order; joined they give the text again."""
    return PIECE.findall(text)


def word_of(piece: str) -> str:
    """A piece as a word of byte tokens.

    Raises:
        LabError: half of a surrogate pair, which no UTF-8 file can hold.
    """
    try:
        return piece.encode().translate(ID_OF_BYTE).decode("latin-1")
    except UnicodeEncodeError as error:
        raise lone_surrogate(error) from None


def pairs_of(word: str) -> Iterator[str]:
    """The pairs of neighbouring tokens of a word, from left to right."""
    return map(operator.add, word, word[1:])


# exercise: gpt.count_pairs
def count_pairs(words: list[str], frequencies: list[int]) -> tuple[dict[str, int], dict[str, list[int]]]:
    """Count all pairs of neighbouring tokens.

    Args:
        words: distinct words.
        frequencies: how often each occurs in the corpus.

    Returns:
        counts: pair -> how often it occurs in the corpus ("aaa" has the pair "aa" twice).
        where: pair -> numbers of the words that have it; a number may be there more than once.
    """
    counts: dict[str, int] = defaultdict(int)
    where: dict[str, list[int]] = defaultdict(list)
    for number, (word, frequency) in enumerate(zip(words, frequencies, strict=True)):
        for pair in pairs_of(word):
            counts[pair] += frequency
            where[pair].append(number)
    return counts, where
# end exercise


# exercise: gpt.merge_pair
def merge_pair(
    pair: str,
    new: str,
    words: list[str],
    frequencies: list[int],
    counts: dict[str, int],
    where: dict[str, list[int]],
) -> set[str]:
    """Replace a pair by one new token in all words, from left to right, and bring the counts up to date.

    Only pairs next to a replaced one change: in "x a b y" the pairs xa and by become xN and Ny. So the work
    is proportional to the number of replacements, not to the size of the corpus.

    Args:
        pair, new: two tokens and the one that takes their place.
        words, frequencies, counts, where: as in `count_pairs`; all but `frequencies` are changed in place.

    Returns:
        The pairs that now exist and have the new token in them.
    """
    first, second = pair
    before: dict[str, list[int]] = defaultdict(list)  # left neighbour -> words, one entry a replacement
    after: dict[str, list[int]] = defaultdict(list)
    for number in set(where.pop(pair)):
        parts = words[number].split(pair)  # one part only if an earlier merge has taken the pair apart
        words[number] = word = new.join(parts)
        at = -1
        for part in parts[:-1]:
            at += len(part) + 1
            if at:
                before[word[at - 1]].append(number)
            if at + 1 < len(word):  # going from left to right, the next pair is not replaced yet
                after[first if word[at + 1] == new else word[at + 1]].append(number)

    changes = [(left + first, left + new, numbers) for left, numbers in before.items()]
    changes += [(second + right, new + right, numbers) for right, numbers in after.items()]
    for old, made, numbers in changes:
        occurrences = sum(map(frequencies.__getitem__, numbers))
        counts[old] -= occurrences
        counts[made] += occurrences
        where[made] += numbers
    del counts[pair]
    return {made for _, made, _ in changes if counts[made] > 0}
# end exercise


def learn_merges(
    words: list[str],
    frequencies: list[int],
    merges_wanted: int,
    min_frequency: int,
    progress: Callable[[int], object] | None = None,
) -> list[str]:
    """The merges in the order learnt; merge number n makes token 256 + n.

    A count in the heap may be out of date, but only too high: the count of a pair grows in the step that
    makes its newer token, and can only fall afterwards. So the top is checked, and put back if it fell.
    """
    min_frequency = max(1, min_frequency)
    counts, where = count_pairs(words, frequencies)
    heap = [(-count, pair) for pair, count in counts.items() if count >= min_frequency]
    heapq.heapify(heap)
    merges: list[str] = []
    while heap and len(merges) < merges_wanted:
        negative_count, pair = heapq.heappop(heap)
        if -negative_count != counts[pair]:
            if counts[pair] >= min_frequency:
                heapq.heappush(heap, (-counts[pair], pair))
            continue
        new = chr(256 + len(merges))
        merges.append(pair)
        for made in merge_pair(pair, new, words, frequencies, counts, where):
            if counts[made] >= min_frequency:
                heapq.heappush(heap, (-counts[made], made))
        if progress and len(merges) % 64 == 0:
            progress(len(merges))
    if progress:
        progress(len(merges))
    return merges


# exercise: gpt.merge_word
def merge_word(word: str, token_of: dict[str, str], pair_of: dict[str, str]) -> str:
    """Apply the learnt merges to one word, the earliest learnt first.

    Args:
        word: one character per byte, from `word_of`.
        token_of: pair -> the token it becomes. Tokens are numbered as learnt: the smallest comes first.
        pair_of: the same, the other way round.

    Returns:
        The word in its final tokens.
    """
    possible = {token_of[pair] for pair in pairs_of(word) if pair in token_of}
    while possible:
        earliest = min(possible)
        possible.remove(earliest)
        parts = word.split(pair_of[earliest])
        word = earliest.join(parts)
        # only pairs with the new token in them are new; two such tokens meet where a part is empty
        pairs = {part[-1:] + earliest for part in parts[:-1]}
        pairs |= {earliest + (part[:1] or earliest) for part in parts[1:]}
        possible.update(token_of[pair] for pair in pairs if pair in token_of)
    return word
# end exercise


class BytePairEncoding:
    """A byte-level BPE tokenizer: ids 0 to 255 are the bytes as in `byte_alphabet`, then come the merges.

    Args:
        merges: pairs of ids, in the order learnt; pair number n makes id 256 + n.

    Raises:
        LabError: a merge uses a token that does not exist yet, or comes twice.
    """

    kind = "bpe"

    def __init__(self, merges: Iterable[tuple[int, int]] = ()) -> None:
        self.merges: list[tuple[int, int]] = [(int(left), int(right)) for left, right in merges]
        self.tokens: list[bytes] = [bytes([byte]) for byte in ALPHABET]
        for left, right in self.merges:
            if not (0 <= left < len(self.tokens) and 0 <= right < len(self.tokens)):
                raise LabError(
                    f"merge ({left}, {right}) uses a token that does not exist yet",
                    "train the tokenizer again",
                )
            self.tokens.append(self.tokens[left] + self.tokens[right])
        self._token_of = {chr(a) + chr(b): chr(256 + n) for n, (a, b) in enumerate(self.merges)}
        self._pair_of = {token: pair for pair, token in self._token_of.items()}
        if len(self._token_of) < len(self.merges):
            raise LabError("a merge comes twice in the tokenizer's list", "train the tokenizer again")
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def train(
        cls,
        text: str,
        vocab_size: int,
        min_frequency: int = 2,
        progress: Callable[[int], object] | None = None,
    ) -> "BytePairEncoding":
        """Learn the merges from a text.

        Args:
            text: the corpus.
            vocab_size: 256 bytes and the merges. Fewer come out when the text has no more frequent pairs.
            min_frequency: a pair seen less often than this in the corpus is not merged.
            progress: called now and then with the number of merges learnt, such as `bar.update`.

        Raises:
            LabError: the text is empty, or the vocabulary is smaller than 256 or larger than a million.
        """
        if not text:
            raise LabError("there is no text to train a tokenizer on", "a UTF-8 file that is not empty")
        if not 256 <= vocab_size <= MAX_VOCAB:
            raise LabError(
                f"a byte-level vocabulary holds 256 to {MAX_VOCAB} tokens, not {vocab_size}",
                "--vocab-size 1024",
            )
        table = Counter(split_text(text))
        words = [word_of(piece) for piece in table]
        merges = learn_merges(words, list(table.values()), vocab_size - 256, min_frequency, progress)
        return cls((ord(left), ord(right)) for left, right in merges)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text. Each distinct piece is worked out once and remembered.

        Raises:
            LabError: a lone surrogate in the text.
        """
        ids: list[int] = []
        cache = self._cache
        for piece in split_text(text):
            known = cache.get(piece)
            if known is None:
                known = [ord(token) for token in merge_word(word_of(piece), self._token_of, self._pair_of)]
                if len(cache) < CACHED_PIECES:
                    cache[piece] = known
            ids += known
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; bytes that are not UTF-8 (half a character) become U+FFFD.

        Raises:
            LabError: an id outside the vocabulary.
        """
        ids = list(ids)
        if ids and not 0 <= min(ids) <= max(ids) < len(self.tokens):
            wrong = next(i for i in ids if not 0 <= i < len(self.tokens))
            raise LabError(
                f"token id {wrong} is outside the vocabulary of {len(self.tokens)}",
                "the tokenizer of the checkpoint that made the ids",
            )
        return b"".join([self.tokens[i] for i in ids]).decode("utf-8", errors="replace")

    def to_dict(self) -> dict:
        """Plain data for a checkpoint or a JSON file."""
        return {"kind": self.kind, "merges": [list(pair) for pair in self.merges]}

    @classmethod
    def from_dict(cls, description: dict) -> "BytePairEncoding":
        """The tokenizer that `to_dict` described.

        Raises:
            LabError: there is no valid list of merges in it.
        """
        try:
            return cls((left, right) for left, right in description["merges"])
        except (KeyError, TypeError, ValueError):
            raise LabError(
                "the tokenizer's description has no valid list of merges", "train the tokenizer again"
            ) from None
