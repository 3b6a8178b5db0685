"""The meetings and their labels. Each test names the bug that it catches."""

import re
import shutil
from collections import Counter
from itertools import combinations

import pytest

from data.meeting_set import FOLDER, KINDS, LANGUAGES, SHIFTS, load_meetings, read_meeting
from labkit.errors import LabError


@pytest.fixture(scope="module")
def meetings():
    return load_meetings()


def words(text: str, language: str) -> list[str]:
    """English words, or Chinese characters, without punctuation and case."""
    return re.findall(r"\w+" if language == "en" else r"\w", text.casefold())


def runs(text: str, language: str, length: int) -> set[tuple[str, ...]]:
    tokens = words(text, language)
    return {tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)}


def test_size_of_the_set(meetings):
    """Catches: a meeting that is not found, or one that a change of the parser has split or glued together."""
    assert Counter(meeting.language for meeting in meetings) == {"en": 5, "zh": 5}
    assert len({meeting.id for meeting in meetings}) == 10 and len({meeting.setting for meeting in meetings}) == 10
    assert Counter(meeting.path.suffix for meeting in meetings) == {".txt": 8, ".vtt": 1, ".srt": 1}
    for meeting in meetings:
        assert 110 <= len(meeting.turns) <= 180, meeting.id
        said = " ".join(turn.text for turn in meeting.turns)
        size, low, high = (len(said.split()), 1800, 3000) if meeting.language == "en" else (
            len(re.sub(r"\s", "", said)), 3000, 5000)  # fmt: skip
        assert low <= size <= high, (meeting.id, size)
        assert 3 <= len(meeting.speakers) <= 6
        assert 4 <= len({topic.title for topic in meeting.topics}) <= 7
        assert len(meeting.questions) >= 15
    assert sum(len(meeting.questions) for meeting in meetings) == 209


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_datasheet_counts_what_is_there(meetings, readme):
    """Catches: a meeting that was edited after its row of the table."""
    text = (FOLDER / readme).read_text(encoding="utf-8")
    for meeting in meetings:
        said = " ".join(turn.text for turn in meeting.turns)
        size = len(said.split()) if meeting.language == "en" else len(re.sub(r"\s", "", said))
        row = re.search(rf"^\| `{meeting.language}/{meeting.path.stem}` .*$", text, re.MULTILINE)[0]
        topics = len(meeting.topics), len({topic.title for topic in meeting.topics})
        counts = [len(meeting.speakers), len(meeting.turns), size, *topics, len(meeting.questions)]
        assert [int(n) for n in re.findall(r"\d+", row.replace(",", ""))] == counts


def test_every_speaker_is_in_one_meeting(meetings):
    """Catches: two people of one name, after which a question has two right places."""
    names = Counter(word for meeting in meetings for name in meeting.speakers for word in name.split())
    del names["Mr"]
    assert set(names.values()) == {1}


def test_turns_are_of_people_in_time(meetings):
    """Catches: times that fall, an empty turn, a person who speaks twice in a row, a listed speaker who never does."""
    for meeting in meetings:
        starts = [turn.start for turn in meeting.turns]
        assert all(a < b for a, b in zip(starts, starts[1:], strict=False)), meeting.id
        assert [turn.index for turn in meeting.turns] == list(range(len(meeting.turns)))
        assert all(turn.text.strip() for turn in meeting.turns)
        assert all(a.speaker != b.speaker for a, b in zip(meeting.turns, meeting.turns[1:], strict=False))
        assert {turn.speaker for turn in meeting.turns} == set(meeting.speakers)
        assert all(turn.end is None or turn.end > turn.start for turn in meeting.turns)


def test_topics_cover_the_meeting_and_come_in_every_way(meetings):
    """Catches: turns without a topic, and a set without the shifts that are hard to find."""
    for meeting in meetings:
        covered = [turn for topic in meeting.topics for turn in range(topic.first, topic.last + 1)]
        assert covered == list(range(len(meeting.turns))), meeting.id
        assert {topic.shift for topic in meeting.topics} == set(SHIFTS), meeting.id


def test_every_quote_is_said(meetings):
    """Catches: a quote that a corrected transcript no longer contains, and evidence as wide as the meeting."""
    for meeting in meetings:
        for question in meeting.questions:
            for place in (*question.evidence, *question.superseded):
                said = [turn.text for turn in meeting.turns[place.first : place.last + 1]]
                assert any(place.quote in text for text in said), (question.id, place.quote)
            assert 1 <= len(question.relevant) <= 10, question.id
            overtaken = {t for place in question.superseded for t in range(place.first, place.last + 1)}
            assert not overtaken & question.relevant, question.id


@pytest.mark.parametrize("language", LANGUAGES)
def test_kinds_of_questions(language):
    """Catches: a kind that one language lacks, and ids that two meetings share."""
    questions = [question for meeting in load_meetings(language) for question in meeting.questions]
    kinds = Counter(question.kind for question in questions)
    assert set(kinds) == set(KINDS) and min(kinds.values()) >= 7
    assert len({question.id for question in questions}) == len(questions)
    assert sum(question.speaker is not None for question in questions) >= 20


def test_questions_do_not_copy_the_transcript(meetings):
    """Catches: a question that a search for its own words would answer."""
    for meeting in meetings:
        length = 8 if meeting.language == "en" else 12
        said = runs("\n".join(turn.text for turn in meeting.turns), meeting.language, length)
        for question in meeting.questions:
            assert not runs(question.question, meeting.language, length) & said, question.id


def test_no_two_questions_are_the_same(meetings):
    """Catches: a set that counts one question twice. Two may be alike only when they ask of different people."""
    for language in LANGUAGES:
        questions = [q for meeting in meetings if meeting.language == language for q in meeting.questions]
        shapes = [runs(question.question, "zh", 3) for question in questions]  # characters, in English as well
        for (a, first), (b, second) in combinations(zip(questions, shapes, strict=True), 2):
            alike = len(first & second) / len(first | second)
            assert alike < (0.5 if a.speaker == b.speaker else 0.8), (a.id, b.id)


def test_some_questions_only_the_speaker_tells_apart(meetings):
    """Catches: a set in which knowing who speaks is worth nothing: same matter, two people, two answers."""
    pairs = [
        (a.id, b.id)
        for meeting in meetings
        for a, b in combinations([q for q in meeting.questions if q.speaker], 2)
        if a.speaker != b.speaker and len(runs(a.question, "zh", 3) & runs(b.question, "zh", 3)) >= 3
    ]
    assert len(pairs) >= 8


@pytest.fixture
def copy(tmp_path):
    """A meeting that may be spoilt."""
    for suffix in (".toml", ".txt"):
        shutil.copy(FOLDER / "zh" / f"clinic-rota{suffix}", tmp_path)
    return tmp_path / "clinic-rota.toml"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('kind = "action"', 'kind = "todo"', "the kind 'todo'"),
        ('id = "zh-clinic-rota-02"', 'id = "zh-clinic-rota-01"', "the id is taken"),
        ("evidence = [", "evidense = [", "has no field evidense"),
        ('quote = "我妈三号上午做手术"', 'quote = "我爸三号上午做手术"', "do not say"),
        ("superseded = [", "superceded = [", "has no field superceded"),
        ('speaker = "许静怡"', 'speaker = "江红"', "the quote is not 江红's"),
        ('speaker = "许静怡"', 'speaker = "小魏"', "is not in the meeting"),
        ("first = 0\n", "first = 1\n", "0 is next"),
        ('shift = "return"', 'shift = "drift"', "a return has the title"),
        ('shift = "opening"', 'shift = "start"', "the shift"),
    ],
)
def test_a_wrong_label_is_named_with_its_line(copy, old, new, what):
    """Catches: a label that no longer fits, noticed only as a retriever that seems to be bad."""
    text = copy.read_text(encoding="utf-8")
    assert old in text
    position = text.index(old)
    copy.write_text(text[:position] + new + text[position + len(old) :], encoding="utf-8")
    with pytest.raises(LabError, match=re.escape(what)) as error:
        read_meeting(copy)
    line = int(re.match(r"clinic-rota.toml, line (\d+): ", error.value.message)[1])
    assert text.splitlines()[line - 1] in ("[[topics]]", "[[questions]]")
    assert text[:position].count("\n") + 1 - line in range(10)


def test_turns_after_the_last_topic_are_noticed(copy):
    """Catches: a transcript that has grown behind its labels."""
    with copy.with_suffix(".txt").open("a", encoding="utf-8") as transcript:
        transcript.write("[01:00:00] 秦树：我还有一件事。\n")
    with pytest.raises(LabError, match="belong to no topic"):
        read_meeting(copy)


def test_a_stranger_in_the_transcript_is_noticed(copy):
    """Catches: a misspelt name, which a filter by speaker would never find."""
    transcript = copy.with_suffix(".txt")
    transcript.write_text(transcript.read_text(encoding="utf-8").replace("秦树：", "秦数：", 1), encoding="utf-8")
    with pytest.raises(LabError, match="lacks 秦数"):
        read_meeting(copy)


def test_broken_toml_and_missing_fields(copy):
    """Catches: a traceback of the TOML reader, or a KeyError, for an instructor who adds a meeting."""
    text = copy.read_text(encoding="utf-8")
    copy.write_text(text.replace("[speakers]", "[speakers", 1), encoding="utf-8")
    with pytest.raises(LabError, match=r"clinic-rota.toml: .*line 7"):
        read_meeting(copy)
    copy.write_text(text.replace("setting =", "settings =", 1), encoding="utf-8")
    with pytest.raises(LabError, match="setting is missing"):
        read_meeting(copy)


def test_an_unknown_language_is_refused():
    """Catches: a misspelt language that yields no meetings in silence."""
    with pytest.raises(LabError, match="'de'"):
        load_meetings("de")
