"""Byte pair encoding against Hugging Face's `tokenizers` (Rust) on the same text, in the same process.

The library is measured with one thread and as it comes, one thread per core. Both start with empty caches.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tokenizers

from stage1_foundations.gpt.byte_pair_encoding import BytePairEncoding, printable

PARALLELISM = "TOKENIZERS_PARALLELISM"  # read by the library at every call


def train_reference(text: str, vocab_size: int, min_frequency: int = 2) -> tokenizers.Tokenizer:
    """The library's byte-level BPE, set up as `byte_pair_encoding` is."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def merges_of_reference(tokenizer: tokenizers.Tokenizer) -> list[tuple[str, str]]:
    """Its merges in the order learnt, in GPT-2's notation."""
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def printable_merges(tokenizer: BytePairEncoding) -> list[tuple[str, str]]:
    """Our merges in the same notation."""
    return [(printable(tokenizer.tokens[a]), printable(tokenizer.tokens[b])) for a, b in tokenizer.merges]


@contextmanager
def library_threads(many: bool) -> Iterator[None]:
    """Let the library use one thread or all, and put its setting back afterwards."""
    before = os.environ.get(PARALLELISM)
    os.environ[PARALLELISM] = "true" if many else "false"
    try:
        yield
    finally:
        del os.environ[PARALLELISM]
        if before is not None:
            os.environ[PARALLELISM] = before


def timed(function: Callable, *arguments: Any) -> tuple[Any, float]:
    """What the function returns, and its seconds."""
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def bench_bpe(text: str, vocab_size: int) -> dict:
    """Train and encode with both; the figures are in seconds and in 10^6 bytes of UTF-8 per second.

    Raises:
        LabError: an empty text, or a vocabulary below 256.
    """
    megabytes = len(text.encode()) / 1e6
    ours, train_seconds = timed(BytePairEncoding.train, text, vocab_size)
    ids, encode_seconds = timed(ours.encode, text)
    result = {
        "bench": "bpe",
        "megabytes": round(megabytes, 3),
        "vocab_size": ours.vocab_size,
        "characters_per_token": round(len(text) / len(ids), 3),
        "train_seconds": round(train_seconds, 3),
        "encode_mb_per_second": round(megabytes / encode_seconds, 2),
        "tokenizers_version": tokenizers.__version__,
    }
    for many, name in ((False, "one_thread"), (True, "all_threads")):
        with library_threads(many):
            reference, train_seconds = timed(train_reference, text, vocab_size)
            # without offsets into the text: the library's fastest way to the ids
            encodings, encode_seconds = timed(reference.encode_batch_fast, [text])
        result[f"tokenizers_train_seconds_{name}"] = round(train_seconds, 3)
        result[f"tokenizers_encode_mb_per_second_{name}"] = round(megabytes / encode_seconds, 2)
    result["merges_equal"] = printable_merges(ours) == merges_of_reference(reference)
    result["encodings_equal"] = ids == encodings[0].ids
    return result
