"""Transcripts, turns and speakers. Each test names the bug that it catches."""

from llama_index.core import Document
from llama_index.core.schema import MetadataMode

from stage2_rag_finetune_deploy.chunking.readers import make_document, subtitles_to_transcript
from stage2_rag_finetune_deploy.chunking.speaker import join_turns, reach_back
from stage2_rag_finetune_deploy.chunking.transcript import Script, find_turns, is_transcript

PLAIN = """Minutes of Monday

[00:00:04] Ada Byron: So, the kettle: is it late?
[00:00:09] Ada Byron: Well?
[00:00:12] 林若溪：不晚。
  still her line
[1:02:03] Dr. O'Neil: 10:30 works for me.
"""
VTT = """WEBVTT - a title

NOTE not speech

turn-1
00:04.786 --> 00:08.495 align:start
<v Ada Byron>So, the <i>kettle</i>:
is it late?</v>

00:08.495 --> 00:09.000
<v Ada Byron>Well?</v>

01:00:09.000 --> 01:00:10.000
<v.loud 林若溪>不晚。
"""
SRT = """1
00:00:04,539 --> 00:00:07,576
Ada Byron: So, the kettle

2
00:00:07,576 --> 00:00:10,751
is late.

3
00:00:11,796 --> 00:00:15,251
Bo Li: Yes.
"""


def test_turns_by_hand():
    """Catches: a time of day or a colon in speech taken for a name; a Chinese colon; a continued line lost."""
    turns = find_turns(PLAIN)
    assert [(turn.speaker, turn.seconds) for turn in turns] == [
        ("", None), ("Ada Byron", 4), ("Ada Byron", 9), ("林若溪", 12), ("Dr. O'Neil", 3723),
    ]  # fmt: skip
    assert PLAIN[turns[3].said : turns[3].end] == "不晚。\n  still her line\n"
    assert "".join(PLAIN[turn.start : turn.end] for turn in turns) == PLAIN
    assert [turn.speaker for turn in find_turns("Ada: hi\n林若溪：嗨\nno turn\n")] == ["Ada", "林若溪"]
    assert find_turns("") == []


def test_what_is_a_transcript():
    """Catches: prose with a colon, or code, taken for a meeting."""
    assert is_transcript("Ada: one\nBo: two\nAda: three\n") and not is_transcript("Ada: one\nAda: two\nAda: three\n")
    assert not is_transcript("Note: this\nis prose, and\nquite long\nof it: really\n") and not is_transcript("")


def test_subtitles_become_turns():
    """Catches: cue numbers, notes, tags or positions in the speech; one turn in two because the screen was small."""
    first, second = subtitles_to_transcript(VTT).splitlines()
    assert first == "[00:00:04] Ada Byron: So, the kettle: is it late? Well?" and second == "[01:00:09] 林若溪: 不晚。"
    assert subtitles_to_transcript(SRT) == "[00:00:04] Ada Byron: So, the kettle is late.\n[00:00:11] Bo Li: Yes.\n"
    assert subtitles_to_transcript(VTT.replace("\n", "\r\n")) == subtitles_to_transcript(VTT)


def test_script_joins_turns_and_leads_back():
    """Catches: turns of one speaker not joined; offsets that lead to another turn."""
    script = Script(PLAIN)
    assert script.text.splitlines()[:2] == ["Minutes of Monday", "Ada Byron: So, the kettle: is it late? Well?"]
    start, end = script.turns[1]
    assert PLAIN[slice(*script.raw(start, end))].endswith("Well?\n")
    assert PLAIN[slice(*script.raw(start, end))].startswith("[00:00:04]")
    place = script.text.index("kettle")
    assert PLAIN[slice(*script.raw(place, place + 6))] == "kettle"


def test_join_turns_by_hand():
    """Catches: a group closed one turn early or late, or over the cap; a turn in two groups."""
    assert join_turns([5, 3, 9, 1, 1, 1], 8, 10) == [(0, 2), (2, 3), (3, 6)]
    assert join_turns([5, 3, 9], 0, 10) == [(0, 1), (1, 2), (2, 3)]
    assert join_turns([4, 4, 4], 99, 8) == [(0, 2), (2, 3)]
    assert join_turns([], 8, 10) == []


def test_reach_back_by_hand():
    """Catches: an overlap that takes half a turn, or one that no longer fits."""
    assert reach_back([(0, 2), (2, 3)], [5, 3, 4], 3, lambda first, last: True) == [(0, 2), (1, 3)]
    assert reach_back([(0, 2), (2, 3)], [5, 3, 4], 3, lambda first, last: False) == [(0, 2), (2, 3)]


def test_who_and_when_are_known_and_not_embedded(chunker):
    """Catches: speakers or times missing, of the wrong turn, or in the vector."""
    nodes = chunker("speaker", 40, join_below=0).get_nodes_from_documents([make_document("m.txt", PLAIN)])
    assert [node.metadata["speakers"] for node in nodes] == ["", "Ada Byron", "林若溪", "Dr. O'Neil"]
    assert nodes[1].metadata["time"] == "00:00:04" and nodes[1].metadata["until"] == "00:00:09"
    assert nodes[3].metadata["time"] == "01:02:03" and "time" not in nodes[0].metadata
    assert "01:02:03" not in nodes[3].get_content(MetadataMode.EMBED)


def test_the_control_cuts_inside_turns(chunker):
    """Catches: a control that is the thing itself, or that loses words or names."""
    speech = "One. Two words. Three more words here."
    text = "".join(f"[00:00:0{n}] {'Ada' if n % 2 else 'Bo'}: {speech}\n" for n in range(9))
    nodes = chunker("speaker", 24, whole_turns=False).get_nodes_from_documents([Document(text=text)])
    assert any(not text[node.start_char_idx :].startswith("[") for node in nodes)
    assert all(node.text.startswith(("Ada: ", "Bo: ")) for node in nodes)
    words = " ".join(node.text for node in nodes).replace("Ada:", "").replace("Bo:", "").split()
    assert words == speech.split() * 9


def test_a_long_speech_repeats_the_name(chunker):
    """Catches: the second half of a speech by nobody."""
    text = "[00:00:01] Ada: " + "This is one more sentence. " * 30 + "\n[00:00:90] Bo: Yes.\n"
    nodes = chunker("speaker", 40).get_nodes_from_documents([Document(text=text)])
    assert len(nodes) > 3 and all(node.text.startswith("Ada: ") for node in nodes[:-1])
    assert {node.metadata["speakers"] for node in nodes[:-1]} == {"Ada"}
