"""Passages for a question: from the help centre, and from the reviews of products. Both may be read, none is obeyed."""

import asyncio
import re
from typing import Any

from stage1_foundations.first_rag.words import key_words, split_words
from stage3_agents_llmops.agent.run_context import RunContext, tell

K = 4  # passages, where the knowledge does not say how many
FIELDS = ("id", "title", "text", "kind", "section")  # of a passage, as the conversation keeps it
QUOTED = 2  # sentences of a passage in an answer
QUOTE_CHARS = 320
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])(?=.)|\n+")
ENDS = '.!。！;；”"…'  # of a sentence that says something
FIGURE_ASKED = re.compile(
    r"\bhow (?:long|many|much|soon|often|late|big)\b|\bwhen\b|\b(?:what|which) (?:time|hours|days?|amount|limit)\b|"
    r"\bdeadline|\blimit\b|多久|多长|多少|多大|几[天日点个次月]|什么时候|何时|啥时|哪天|期限|上限",
    re.IGNORECASE,
)
FIGURE_COUNTS = 2  # words, for a sentence with a figure in it where one is asked for
SECTION_COUNTS = 2  # words, for a sentence of the section that was found


async def find_passages(
    context: RunContext, question: str, language: str, kind: str, k: int | None = None
) -> tuple[list[dict[str, Any]], bool]:
    """The passages that fit best, as plain data, and whether they answer the question."""
    knowledge = context.services.knowledge
    k = k or getattr(knowledge, "k", K)
    told = {"name": f"search_{kind}", "arguments": {"question": question, "k": k}, "sensitive": False, "write": False}
    tell("tool", phase="call", **told)
    found = await context.think(lambda: asyncio.to_thread(knowledge.search, question, language, kind=kind, k=k))
    sure = bool(found) and knowledge.confident(found, question)
    for passage in found:
        if passage.removed:
            tell("guardrail", stage="passage", finding=f"instruction in {passage.id}", action="removed")
    tell("tool", phase="result", ok=bool(found), message_code="found" if sure else "not_found",
         result={"passages": [passage.id for passage in found], "confident": sure,
                 "score": round(found[0].evidence, 4) if found else 0.0}, **told)  # fmt: skip
    return [{name: getattr(passage, name, "") for name in FIELDS} for passage in found], sure


def quote(text: str, question: str, section: str = "") -> str:
    """The sentences of a passage that answer the question best, in their order: at most two of them.

    A sentence counts as many as it shares key words with the question (Chinese: characters), SECTION_COUNTS more if it
    stands in `section`, and FIGURE_COUNTS more if the question asks for a figure ("how long", "多少") and it has one.
    Of sentences that count equally the earlier ones are taken; questions and headings only where nothing else is. The
    result has at most QUOTE_CHARS characters, cut at a sentence's end unless the first sentence alone is longer.
    """
    pieces = [found.strip() for found in SENTENCE_END.split(text) if found.strip()]
    sentences = [each for each in pieces if each[-1] in ENDS] or pieces
    asked = key_words(question)
    wanted = FIGURE_COUNTS if FIGURE_ASKED.search(question) else 0
    counts = [
        len(asked & set(split_words(each)))
        + (wanted if re.search(r"\d", each) else 0)
        + (SECTION_COUNTS if each in section else 0)
        for each in sentences
    ]
    order = sorted(range(len(sentences)), key=lambda place: (-counts[place], place))
    result = ""
    for place in sorted(order[:QUOTED]):
        glue = "" if not result or result[-1] in "。！？" else " "
        if result and len(result) + len(sentences[place]) + 1 > QUOTE_CHARS:
            break
        result += glue + sentences[place]
    return result[:QUOTE_CHARS]
