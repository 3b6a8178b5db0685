"""Which chunkers an exam compares, and which of them are right and wrong."""

from labkit.cli import nearest
from labkit.errors import LabError
from stage2_rag_finetune_deploy.chunking.measure import Row

SENTENCE = Row("sentences, overlap", "sentence")
COMMON = [
    Row("sentences", "sentence", options={"overlap": 0}),
    Row("fixed window, overlap", "fixed"),
    Row("sentence window", "sentence-window"),
    Row("semantic", "semantic"),
    Row("parent and child", "parent-child", options={"overlap": 0}),
]
TOO_LARGE = Row("sentences of 800 tokens", "sentence", "wrong", {"cap": 800, "overlap": 100})
CHARACTERS = Row("characters", "characters", "wrong")

ROWS: dict[str, list[Row]] = {
    "technical": [
        Row("section and function", "dispatch", "right"),
        Row("the same without path", "dispatch", options={"embedded": ()}),
        SENTENCE,
        *COMMON,
        Row("by speaker", "speaker", "wrong"),
        CHARACTERS,
        TOO_LARGE,
    ],
    "article": [
        Row("sentences, overlap", "sentence", "right"),
        *COMMON,
        Row("topic", "topic"),
        CHARACTERS,
        TOO_LARGE,
    ],
}  # fmt: skip
ROWS["meeting-en"] = ROWS["meeting-zh"] = [
    Row("speaker, turns joined", "speaker", "right"),
    Row("speaker, one a chunk", "speaker", options={"join_below": 0, "overlap": 0}),
    Row("topic", "topic"),
    SENTENCE,
    *COMMON,
    CHARACTERS,
    TOO_LARGE,
]


def rows_of(exam: str, chosen: str) -> list[Row]:
    """The rows of an exam: all, or the right one and those whose chunker or name is among the words of `chosen`.

    Raises:
        LabError: a word that no row of any exam has.
    """
    if chosen == "all":
        return ROWS[exam]
    words = [word.strip() for word in chosen.split(",") if word.strip()]
    known = sorted({text for rows in ROWS.values() for row in rows for text in (row.chunker, row.name)})
    for word in words:
        if word not in known:
            raise LabError(f"no chunker is called {word!r}", nearest(word, known) or f"--chunkers {','.join(known)}")
    return [row for row in ROWS[exam] if row.role == "right" or row.chunker in words or row.name in words]
