"""Reading transcripts. Each test names the bug that it catches."""

import pytest

from data.meeting_set import FOLDER
from data.transcripts import Turn, read_transcript
from labkit.errors import LabError


def written(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def said(turns):
    return [(turn.speaker, turn.text) for turn in turns]


def test_plain_text_with_either_colon(tmp_path):
    """Catches: a Chinese colon taken for text, a colon inside the words taken for the label's, hours dropped."""
    path = written(tmp_path, "a.txt", "[00:00:05] Mei Lin: At 10:30: no.\n\n[01:02:03] 周岚：好：行。\n")
    assert read_transcript(path) == [
        Turn(0, "Mei Lin", "At 10:30: no.", 5.0),
        Turn(1, "周岚", "好：行。", 3723.0),
    ]


VTT = """WEBVTT - weekly

STYLE
::cue { color: white }

NOTE
nobody said --> this

first
00:01.000 --> 00:02.500 align:start
<v.loud Ann Bell>Profit &amp; loss,
<i>please</i>.

00:02.500 --> 00:03.000
which is short.

01:00:04.000 --> 01:00:06.000
<v Bo>No. <v Ann Bell>Yes.</v>
"""


def test_webvtt(tmp_path):
    """Catches: notes and styles read as speech, tags and entities left in, cues of one turn counted as two."""
    path = written(tmp_path, "a.vtt", "\ufeff" + VTT.replace("nobody said --> this", "nobody said this"))
    turns = read_transcript(path)
    assert said(turns) == [("Ann Bell", "Profit & loss, please. which is short."), ("Bo", "No."), ("Ann Bell", "Yes.")]
    assert (turns[0].start, turns[0].end, turns[1].start) == (1.0, 3.0, 3604.0)


SRT = """1
00:00:01,000 --> 00:00:02,000
Dana K.: So the rule is:
we talk.

2
00:00:02,000 --> 00:00:03,000
Rule: nobody shouts.

3
00:00:04,000 --> 00:00:05,500
Owen: <i>Good.</i>

4
00:00:06,000 --> 00:00:07,000
Dana K.: Fine.

5
00:00:08,000 --> 00:00:09,000
Owen: Fine.
"""


@pytest.mark.parametrize("names", [None, ["Dana K.", "Owen"]])
def test_subrip(tmp_path, names):
    """Catches: "Rule:" taken for a person, and the second line of a cue lost."""
    turns = read_transcript(written(tmp_path, "a.srt", SRT.replace("\n", "\r\n")), names)
    assert said(turns) == [
        ("Dana K.", "So the rule is: we talk. Rule: nobody shouts."), ("Owen", "Good."), ("Dana K.", "Fine."),
        ("Owen", "Fine."),
    ]  # fmt: skip
    assert (turns[0].start, turns[0].end) == (1.0, 3.0)


def test_chinese_cues_are_joined_without_a_space(tmp_path):
    """Catches: spaces in the middle of Chinese sentences, which no query matches."""
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v 周岚>我们先看\n\n00:02.000 --> 00:03.000\n<v 周岚>价格。\n"
    assert said(read_transcript(written(tmp_path, "a.vtt", text))) == [("周岚", "我们先看价格。")]


def test_the_formats_of_the_course_agree_with_plain_text(tmp_path):
    """Catches: a turn split at a cue's edge or glued to the next: the turns survive the way through plain text."""
    for path in (FOLDER / "en" / "kettle-launch.vtt", FOLDER / "en" / "cold-room.srt"):
        turns = read_transcript(path)
        lines = [f"[00:{t.index // 60:02}:{t.index % 60:02}] {t.speaker}: {t.text}\n" for t in turns]
        again = read_transcript(written(tmp_path, "again.txt", "".join(lines)))
        assert said(again) == said(turns)
        assert not any("<" in turn.text or "-->" in turn.text or "\n" in turn.text for turn in turns)
        assert all(turn.end > turn.start for turn in turns)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "[00:00:01] Ann: Hi.\nBo: no time\n", "a.txt, line 2: expected"),
        ("a.txt", "[00:00:09] Ann: Hi.\n[00:00:09] Bo: Hi.\n", "a.txt, line 2: the time does not rise"),
        ("a.txt", "\n \n", "a.txt has no turns"),
        ("a.vtt", "00:01.000 --> 00:02.000\n<v Ann>Hi.\n", "a.vtt, line 1: a WebVTT file begins"),
        ("a.vtt", "WEBVTT\n\n00:01 --> 00:02\n<v Ann>Hi.\n", "a.vtt, line 3: expected a cue"),
        ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nHi.\n", "a.vtt, line 3: nobody is named"),
        ("a.vtt", "WEBVTT\n\nx\n00:03.000 --> 00:02.000\n<v Ann>Hi.\n", "a.vtt, line 4: the cue ends before"),
        ("a.srt", SRT.replace("00:00:06,000", "00:00:01,000"), "a.srt, line 14: the time does not rise"),
        ("a.docx", "", "a.docx is no transcript"),
    ],
)
def test_what_is_wrong_and_where(tmp_path, name, text, message):
    """Catches: a learner's own export that fails with a traceback, or is read as something else."""
    with pytest.raises(LabError) as error:
        read_transcript(written(tmp_path, name, text))
    assert message in error.value.message


def test_missing_and_misencoded_files(tmp_path):
    """Catches: tracebacks for the two most usual mistakes."""
    with pytest.raises(LabError, match="not found"):
        read_transcript(tmp_path / "none.txt")
    path = tmp_path / "gbk.txt"
    path.write_bytes("[00:00:01] 周岚：好。".encode("gbk"))
    with pytest.raises(LabError, match="not UTF-8"):
        read_transcript(path)
