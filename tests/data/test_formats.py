"""Fine-tuning formats: readers, converters, validator, command line. Each test names the bug that it catches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import formats
from data.__main__ import main
from data.formats import FORMATS, Alpaca, Conversation, FormatError, Preference, Prompt, convert, is_blank, to_row
from data.validate import read_file
from labkit.errors import LabError
from labkit.files import write_jsonl

ROOT = Path(__file__).parents[2]
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
FULL = TEXT.filter(lambda text: not is_blank(text))
IDS = st.one_of(st.just(""), FULL)
ALPACA = st.builds(Alpaca, FULL, FULL, TEXT, TEXT, st.lists(st.tuples(FULL, FULL), max_size=3).map(tuple), IDS)
CONVERSATION = st.builds(
    lambda pairs, system, id: Conversation(
        tuple(turn for question, answer in pairs for turn in (("human", question), ("gpt", answer))), system, id
    ),
    st.lists(st.tuples(FULL, FULL), min_size=1, max_size=4),
    TEXT,
    IDS,
)
PREFERENCE = st.builds(Preference, FULL, FULL, FULL, IDS).filter(lambda pair: pair.chosen != pair.rejected)
PROMPT = st.builds(Prompt, FULL, FULL, IDS)
SAMPLES = {"alpaca": ALPACA, "sharegpt": CONVERSATION, "preference": PREFERENCE, "prompt": PROMPT}


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_written_is_read_back(name, tmp_path_factory):
    """Catches: a field lost on the way to the disk; U+2028 or a control character that breaks a line."""
    path = tmp_path_factory.mktemp("formats") / "file.jsonl"

    @settings(deadline=None)
    @given(st.lists(SAMPLES[name], min_size=1, max_size=5, unique_by=lambda sample: sample.id or id(sample)))
    def check(samples):
        write_jsonl(path, [to_row(sample) for sample in samples])
        reading = read_file(path, name)
        assert list(reading.samples.values()) == samples and reading.problems == []

    check()


@settings(deadline=None)
@given(CONVERSATION)
def test_sharegpt_to_alpaca_and_back(sample):
    """Catches: turns out of order, a lost history, system text or id."""
    assert convert(convert(sample, "sharegpt", "alpaca"), "alpaca", "sharegpt") == sample


@settings(deadline=None)
@given(ALPACA)
def test_alpaca_to_sharegpt_and_back(sample):
    """Catches: the input dropped instead of appended to the instruction."""
    back = convert(convert(sample, "alpaca", "sharegpt"), "sharegpt", "alpaca")
    question = f"{sample.instruction}\n{sample.input}" if sample.input else sample.instruction
    assert back == Alpaca(question, sample.output, "", sample.system, sample.history, sample.id)


@settings(deadline=None)
@given(PROMPT)
def test_prompt_with_an_answer_to_each_and_back(sample):
    """Catches: the answer where the prompt belongs."""
    for other in ("alpaca", "sharegpt"):
        assert convert(convert(sample, "prompt", other), other, "prompt") == sample


def test_a_pair_becomes_its_better_answer():
    """Catches: imitating the rejected answer."""
    pair = Preference("which?", "good", "bad", "7")
    assert convert(pair, "preference", "prompt") == Prompt("which?", "good", "7")
    assert convert(pair, "preference", "alpaca") == Alpaca("which?", "good", id="7")
    assert convert(pair, "preference", "preference") is pair


def test_what_would_be_lost_is_refused():
    """Catches: a system text or earlier turns that vanish in a conversion; an invented rejected answer."""
    two = Conversation((("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d")))
    with pytest.raises(FormatError, match="4 turns"):
        convert(two, "sharegpt", "prompt")
    with pytest.raises(FormatError, match="a system text"):
        convert(Alpaca("a", "b", system="be brief"), "alpaca", "prompt")
    with pytest.raises(FormatError, match="no answer"):
        convert(Prompt("a"), "prompt", "alpaca")
    for name in ("alpaca", "sharegpt", "prompt"):
        with pytest.raises(LabError, match="no rejected answer"):
            convert(Prompt("a", "b"), name, "preference")


def turns(*roles):
    return {"conversations": [{"from": role, "value": "text"} for role in roles]}


@pytest.mark.parametrize(
    ("format", "row", "problem"),
    [
        ("alpaca", {"instruction": "a"}, "missing field output"),
        ("alpaca", {"instruction": "a", "ouput": "b"}, "missing field output; is ouput meant?"),
        ("alpaca", {"instruction": "a", "output": " \n\u200b"}, "output is empty"),
        ("alpaca", {"instruction": "a", "output": 3}, "output is int, not text"),
        ("alpaca", {"instruction": "a", "output": None}, "output is NoneType, not text"),
        ("alpaca", {"instruction": "a", "output": "b", "input": 5}, "input is int, not text"),
        ("alpaca", {"instruction": "a", "output": "b", "history": [["q"]]}, "history is not a list"),
        ("alpaca", {"instruction": "a", "output": "b", "history": [["q", ""]]}, "history is not a list"),
        ("alpaca", {"instruction": "a", "output": "b", "id": []}, "id is list, not text"),
        ("sharegpt", {"conversation": []}, "missing field conversations; is conversation meant?"),
        ("sharegpt", {"conversations": []}, "conversations is not a list of turns"),
        ("sharegpt", turns("human"), "wrong role order: human; human and gpt by turns, gpt last"),
        ("sharegpt", turns("gpt", "human"), "wrong role order: gpt, human"),
        ("sharegpt", turns("human", "human", "gpt"), "wrong role order: human, human, gpt"),
        ("sharegpt", turns("human", "gpt", "system", "gpt"), "wrong role order"),
        ("sharegpt", turns("system"), "wrong role order: no turn"),
        ("sharegpt", turns("system", "human", "gpt") | {"system": "x"}, "a system field and a system turn"),
        ("sharegpt", turns("user", "gpt"), "turn 1 is from 'user', not from system, human, gpt"),
        ("sharegpt", {"conversations": ["hi"]}, "turn 1 is from 'hi'"),
        ("sharegpt", {"conversations": [{"from": "human", "value": ""}]}, "turn 1, human, is empty"),
        ("preference", {"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same"),
        ("preference", {"prompt": "a", "chosen": "b"}, "missing field rejected"),
        ("prompt", {"prompt": ""}, "prompt is empty"),
        ("prompt", {"question": "a"}, "missing field prompt"),
    ],
)
def test_a_bad_row_is_named(format, row, problem):
    """Catches: a bad row that passes, or a message that does not say what is bad."""
    with pytest.raises(FormatError) as error:
        FORMATS[format].parse(row)
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_a_system_turn_counts_as_system():
    """Catches: a system turn taken for the question."""
    sample = FORMATS["sharegpt"].parse(turns("system", "human", "gpt"))
    assert sample == Conversation((("human", "text"), ("gpt", "text")), system="text")


BAD = b"""{"instruction": "a", "output": "b", "id": 1}
{"instruction": "a", "output": ""}

{oops
{"instruction": "a", "output": "b", "id": "1"}
["a"]
12
{"instruction": "a", "output": "\xff"}
{"instruction": "a", "output": "\\ud800"}
"""


def test_validate_names_every_bad_line(tmp_path, capsys, monkeypatch):
    """Catches: line numbers that skip blank lines; the first problem hiding the others; a traceback; exit code 0."""
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_bytes(BAD)
    with pytest.raises(LabError, match="7 bad lines of 8 in bad.jsonl"):
        main(["validate", "bad.jsonl", "--format", "alpaca"])
    assert capsys.readouterr().out.splitlines() == [
        "bad.jsonl:2: output is empty",
        "bad.jsonl:4: not JSON: Expecting property name enclosed in double quotes at column 2",
        "bad.jsonl:5: id '1' is that of line 1",
        "bad.jsonl:6: a JSON array; one object a line is wanted (jq -c '.[]' FILE)",
        "bad.jsonl:7: int, not an object",
        "bad.jsonl:8: not UTF-8: byte 33",
        "bad.jsonl:9: half a surrogate pair, which is no character",
    ]


def test_over_long_texts_are_counted(tmp_path, capsys):
    """Catches: a long sample cut or refused without a word."""
    path = tmp_path / "long.jsonl"
    write_jsonl(path, [{"prompt": "a" * length} for length in (10, 101, 300)])
    main(["validate", str(path), "--format", "prompt", "--max-characters", "100"])
    out = capsys.readouterr().out
    assert "2 too long; the longest has 300 characters, line 3" in out and "samples: 3, all good" in out
    assert [len(sample.prompt) for sample in read_file(path, "prompt").samples.values()] == [10, 101, 300]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not a file"), (b"", "no sample"), (b"\n \n", "no sample"), (b"[\n{}\n]", "JSON over several lines")],
)
def test_a_file_without_samples(tmp_path, content, message):
    """Catches: an empty file called good; a thousand problems for a file that has one."""
    path = tmp_path / "file.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LabError, match=message):
        main(["validate", str(path), "--format", "prompt"])


@pytest.mark.parametrize("line", ["[" * 100_000, '{"prompt": ' + "9" * 5_000 + "}"])
def test_json_that_python_cannot_read_is_a_bad_line(tmp_path, line):
    """Catches: RecursionError and ValueError out of the JSON module as a traceback."""
    path = tmp_path / "file.jsonl"
    path.write_text('{"prompt": "a"}\n' + line, encoding="utf-8")
    assert [problem.line for problem in read_file(path, "prompt").problems] == [2]


def test_a_byte_order_mark_is_no_problem(tmp_path):
    """Catches: files saved by Windows editors refused for a character nobody sees."""
    path = tmp_path / "file.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n{"prompt": "b"}\r\n')
    assert [sample.prompt for sample in read_file(path, "prompt").samples.values()] == ["a", "b"]


def test_convert_writes_whole_files_or_none(tmp_path):
    """Catches: a half-written OUT; good lines converted while bad ones are dropped."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_jsonl(source, [{"instruction": "a", "input": "b", "output": "c"}])
    main(["convert", str(source), str(target), "--from", "alpaca", "--to", "sharegpt"])
    row = json.loads(target.read_text(encoding="utf-8"))
    assert row == {"conversations": [{"from": "human", "value": "a\nb"}, {"from": "gpt", "value": "c"}]}
    before = target.read_bytes()
    write_jsonl(source, [{"instruction": "a", "output": "c"}, {"instruction": "a", "output": "b", "system": "c"}])
    with pytest.raises(LabError, match="1 bad line of 2"):
        main(["convert", str(source), str(target), "--from", "alpaca", "--to", "prompt"])
    assert target.read_bytes() == before and sorted(path.name for path in tmp_path.iterdir()) == [
        "in.jsonl",
        "out.jsonl",
    ]


def test_the_command_line_ends_with_two_lines_and_exit_code_2(tmp_path):
    """Catches: a traceback for a learner; problems that wrap in a narrow terminal."""
    path = tmp_path / "file.jsonl"
    path.write_text('{"instruction": "a"}\n', encoding="utf-8")
    words = [sys.executable, "-m", "data", "validate", str(path), "--format"]
    run = lambda format: subprocess.run(  # noqa: E731
        [*words, format], cwd=ROOT, env=os.environ | {"COLUMNS": "40"}, capture_output=True, text=True
    )
    bad, unknown = run("alpaca"), run("alpca")
    assert bad.returncode == unknown.returncode == 2
    assert bad.stdout == f"{path}:1: missing field output\n"
    assert bad.stderr.splitlines()[0] == "error: 1 bad line of 1 in file.jsonl" and len(bad.stderr.splitlines()) == 2
    assert unknown.stderr == "error: no format is called 'alpca'\n  try: alpaca\n"


def test_a_samples_class_belongs_to_its_format():
    """Catches: a new format without a converter."""
    assert set(SAMPLES) == set(FORMATS) == set(formats.FORMATS)
