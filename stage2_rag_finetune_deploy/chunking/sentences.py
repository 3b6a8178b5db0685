"""Sentences as offsets: English and Chinese, one after the other, nothing between them.

NLTK's Punkt, LlamaIndex's default, knows no Chinese full stop and takes seconds to import. This rule knows both
languages: a full stop ends a sentence where white space and a capital follow, unless it belongs to an abbreviation; a
Chinese one always does, with the closing quotation mark that stands behind it. A blank line ends a sentence, too.
"""

import re

Offsets = tuple[int, int]

END = re.compile(
    r"(?P<latin>(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[A-Z0-9]))"
    r"|(?<=[。！？；])[”’」』）]*(?![。！？；”’」』）])"
    r"|\n[ \t]*\n\s*"
)
ABBREVIATION = re.compile(
    r"(?:^|[\s(\[])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Mt|Jr|Sr|vs|etc|cf|No|Fig|Eq|Sec|Vol|approx|e\.g|i\.e|[A-Z]\.[A-Z])\.$"
)


def sentence_offsets(text: str, start: int = 0, end: int | None = None) -> list[Offsets]:
    """Where the sentences of `text[start:end]` lie, each with the white space behind it.

    They follow each other without a gap, so that put together they are the text again.
    """
    end = len(text) if end is None else end
    cuts = []
    for match in END.finditer(text, start, end):
        before = text[max(start, match.start() - 8) : match.start()]
        if not (match["latin"] and ABBREVIATION.search(before)):
            cuts.append(match.end())
    borders = sorted({start, *cuts, end})
    return list(zip(borders, borders[1:], strict=False))
