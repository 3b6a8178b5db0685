"""Training questions without people: SmolLM2 writes them from Wikipedia passages (InPars, Bonifacio et al. 2022).

The labelled sets of this course carry a canary and are for evaluation only. So the reranker learns from questions
that a language model wrote about WikiText-2, and the model only sees three worked examples (in PROMPT). Of what it
writes, only what passes two filters is kept: its form, and a round trip (a search with the question must find its
passage again; Alberti et al. 2019).

    python -m stage2_rag_finetune_deploy.rag make-questions     # appends to synthetic_questions.jsonl

The file that comes with the course holds the questions and the numbers of their passages, not the passages.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import data
from labkit.device import choose_dtype
from labkit.errors import LabError

SHIPPED = Path(__file__).with_name("synthetic_questions.jsonl")
STARTS = ("What", "What", "What", "Who", "When", "Which", "Where", "How many", "How", "Why", "In which year")
EXAMPLES = """Passage: The bridge was opened in 1932 after six years of work. It carries eight lanes of traffic and \
two railway lines across the harbour.
Question: How many lanes of road traffic does the harbour bridge carry?

Passage: Honey bees tell each other where food is by dancing. Karl von Frisch, who decoded the dance, shared a Nobel \
Prize for it in 1973.
Question: Which scientist worked out what the dance of honey bees means?

Passage: Because tin was cheap and did not rust, it was used to line cans of food. The first cans had to be opened \
with a hammer and chisel.
Question: Why were food cans lined with tin?

Passage:"""
PROMPT = " {passage}\nQuestion: {start}"
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"(])")
LONGEST_QUESTION = 24  # tokens


@dataclass(frozen=True)
class Pair:
    """A question and the number of its passage (its line in WikiText-2's training text)."""

    passage: str
    question: str


def detokenise(text: str) -> str:
    """WikiText's spaced-out tokens as ordinary text: `1 @,@ 300 people ( 1943 ) .` is `1,300 people (1943).`"""
    text = re.sub(r" @(.)@ ", r"\1", text)
    text = re.sub(r"\s+([,.;:!?%)\]])", r"\1", text)
    text = re.sub(r"([(\[])\s+", r"\1", text)
    text = re.sub(r'" ([^"]*?) "', r'"\1"', text)
    text = re.sub(r" '(s|t|re|ve|d|ll|m)\b", r"'\1", text)
    return re.sub(r"\s+", " ", text).strip()


@cache
def wikipedia_passages(shortest: int = 50, longest: int = 220) -> dict[str, str]:
    """Paragraphs of WikiText-2's training text by line number, of `shortest` to `longest` words."""
    passages = {}
    for number, line in enumerate(data.load_text("wikitext-2", split="train").split("\n")):
        if not line.startswith(" =") and shortest <= len(line.split()) <= longest and "<unk>" not in line:
            passages[str(number)] = detokenise(line)
    return passages


def read_pairs(path: Path = SHIPPED) -> list[Pair]:
    """The questions of a file.

    Raises:
        LabError: there is no such file, it is empty, or a line is not of its form.
    """
    advice = "python -m stage2_rag_finetune_deploy.rag make-questions"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        pairs = [Pair(**json.loads(line)) for line in lines if line.strip()]
    except (OSError, ValueError, TypeError) as error:
        raise LabError(f"{path.name} cannot be read: {error}"[:200], advice) from None
    if not pairs:
        raise LabError(f"{path.name} holds no questions", advice)
    return pairs


def excerpt(passage: str, rng: random.Random) -> str:
    """Two neighbouring sentences: what a question is written from."""
    sentences = SENTENCE.split(passage)
    start = rng.randrange(max(1, len(sentences) - 1))
    return " ".join(sentences[start : start + 2])


def well_formed(question: str, source: str) -> bool:
    """Whether a line that the model wrote is a question that somebody could ask without seeing the passage.

    It ends with its only question mark, has 5 to 20 words, does not speak of "the passage", does not hang on a
    pronoun ("When did he ..."), shares a word of four letters or more with its source, and is no copy of ten words.
    """
    words = re.findall(r"[^\W_]+", question.lower())
    if question.count("?") != 1 or not question.endswith("?") or not 5 <= len(words) <= 20:
        return False
    if re.search(r"\b(passage|text|article|author|sentence|question|paragraph)\b", question.lower()):
        return False
    if {"he", "she", "they", "it", "his", "her", "their", "this", "these", "its"} & set(words):
        return False
    told = re.findall(r"[^\W_]+", source.lower())
    if not {word for word in words if len(word) > 3} & set(told):
        return False
    runs = {tuple(told[place : place + 10]) for place in range(len(told) - 9)}
    return not any(tuple(words[place : place + 10]) in runs for place in range(len(words) - 9))


class QuestionWriter:
    """SmolLM2 after three worked examples, whose keys and values are computed once and shared by every batch.

    Args:
        folder: of the language model.
        temperature: of the sampling; 0.7 leaves it room, and not too much.
    """

    def __init__(self, folder: Path, temperature: float = 0.7) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.temperature = temperature
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=choose_dtype("auto", "cpu")).eval()
        words = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        ends = [number for number, word in enumerate(words) if "?" in word or "Ċ" in word]  # Ċ is the line feed
        self._ends = [self.tokenizer.eos_token_id, *ends]
        self._examples = self.tokenizer(EXAMPLES, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            self._shared = self.model(self._examples, use_cache=True).past_key_values

    def write(self, sources: Sequence[str], starts: Sequence[str]) -> list[str]:
        """One question for each excerpt, beginning with its start; unchecked."""
        import copy

        import torch

        prompts = [PROMPT.format(passage=source, start=start) for source, start in zip(sources, starts, strict=True)]
        tail = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        head = self._examples.expand(len(prompts), -1)
        cache = copy.deepcopy(self._shared)
        cache.batch_repeat_interleave(len(prompts))
        with torch.inference_mode():
            written = self.model.generate(
                input_ids=torch.cat([head, tail["input_ids"]], dim=1),
                attention_mask=torch.cat([torch.ones_like(head), tail["attention_mask"]], dim=1),
                past_key_values=cache, max_new_tokens=LONGEST_QUESTION, do_sample=True, top_p=0.95,
                temperature=self.temperature, pad_token_id=self.tokenizer.eos_token_id, eos_token_id=self._ends,
            )  # fmt: skip
        new = written[:, head.shape[1] + tail["input_ids"].shape[1] :]
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [f"{start}{text.split(chr(10))[0]}".strip() for start, text in zip(starts, texts, strict=True)]


def write_questions(
    writer: Any, passages: dict[str, str], batch: int, seed: int, skip: set[str] = frozenset()
) -> Iterator[list[Pair]]:
    """Well-formed questions, batch by batch, one passage after the other in a random order.

    Args:
        writer: has `write(sources, starts)`.
        skip: passages that have their question already.
    """
    rng = random.Random(seed)
    order = sorted(passages.keys() - skip, key=int)
    rng.shuffle(order)
    for place in range(0, len(order), batch):
        part = order[place : place + batch]
        sources = [excerpt(passages[number], rng) for number in part]
        written = writer.write(sources, [rng.choice(STARTS) for _ in part])
        yield [
            Pair(number, question)
            for number, question, source in zip(part, written, sources, strict=True)
            if well_formed(question, source)
        ]


def round_trip(pairs: Sequence[Pair], retriever: Any, depth: int = 10) -> list[Pair]:
    """The pairs whose question finds its passage among the first `depth`."""
    return [pair for pair in pairs if pair.passage in {hit.id for hit in retriever.retrieve(pair.question, depth)}]
