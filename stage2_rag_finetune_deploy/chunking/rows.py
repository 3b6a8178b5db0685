"""Which chunkers an exam compares, and which of them are right and wrong."""

from labkit.cli import nearest
from labkit.errors import LabError
from stage2_rag_finetune_deploy.chunking.measure import Row

OVERLAP = Row("sentences, overlap", "sentence")
SENTENCES = Row("sentences", "sentence", options={"overlap": 0})
FIXED = Row("fixed window, overlap", "fixed")
WINDOW = Row("sentence window", "sentence-window")
SEMANTIC = Row("semantic", "semantic")
PARENT = Row("parent and child", "parent-child", options={"overlap": 0})
TOPIC = Row("topic", "topic")
ONE_TURN = Row("speaker, one turn", "speaker", options={"join_below": 0, "overlap": 0})
NO_TURNS = Row("speaker, cut anywhere", "speaker", options={"whole_turns": False})
CHARACTERS = Row("characters", "characters", "wrong")
TOO_LARGE = Row("sentences of 800", "sentence", "wrong", {"cap": 800, "overlap": 100})

RIGHT = {
    "technical": Row("section, function", "dispatch", "right"),
    "article": Row("sentences, overlap", "sentence", "right"),
    "meeting": Row("speaker", "speaker", "right"),
}
NO_PATH = Row("without the path", "dispatch", options={"embedded": ()})
BY_SPEAKER = Row("by speaker", "speaker", "wrong")
ROWS: dict[str, list[Row]] = {
    "technical": [NO_PATH, OVERLAP, SENTENCES, FIXED, WINDOW, SEMANTIC, PARENT, BY_SPEAKER, CHARACTERS, TOO_LARGE],
    "article": [SENTENCES, FIXED, WINDOW, SEMANTIC, TOPIC, PARENT, CHARACTERS, TOO_LARGE],
    "meeting": [NO_TURNS, TOPIC, ONE_TURN, OVERLAP, SENTENCES, FIXED, WINDOW, SEMANTIC, PARENT, CHARACTERS, TOO_LARGE],
}
MAIN: dict[str, list[Row]] = {
    "technical": [OVERLAP, FIXED, BY_SPEAKER, CHARACTERS, TOO_LARGE],
    "article": [FIXED, PARENT, CHARACTERS, TOO_LARGE],
    "meeting": [TOPIC, ONE_TURN, OVERLAP, CHARACTERS, TOO_LARGE],
}


def rows_of(exam: str, chosen: str) -> list[Row]:
    """The rows of an exam, the right one first.

    Args:
        chosen: "all", "main" (what `cpu` has time for), or chunkers and rows by name, separated by commas.

    Raises:
        LabError: a word that no row of any exam has.
    """
    kind = exam.partition("-")[0]
    if chosen in ("all", "main"):
        return [RIGHT[kind], *(ROWS if chosen == "all" else MAIN)[kind]]
    words = [word.strip() for word in chosen.split(",") if word.strip()]
    known = sorted({text for rows in ROWS.values() for row in rows for text in (row.chunker, row.name)})
    for word in words:
        if word not in known:
            raise LabError(f"no chunker is called {word!r}", nearest(word, known) or f"--chunkers {','.join(known)}")
    return [RIGHT[kind], *(row for row in ROWS[kind] if row.chunker in words or row.name in words)]
