"""The shop's utterances: frames, generator, labels, loader. Each test names the bug that it catches."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

import data
from data.customer_service import generate
from data.customer_service.frames import load_voices, read_voice
from data.customer_service.schema import INTENTS, REASONS, SLOTS_OF, label_errors, label_json, same_value
from data.customer_service.values import lists
from labkit.errors import LabError

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "validation", "test")
SHOP = [f"customer-service-{language}" for language in ("en", "zh")]


def everything():
    """(set, split, utterance) for all of the shop's."""
    return [(name, split, item) for name in SHOP for split in SPLITS for item in data.load_understanding(name, split)]


def test_regeneration_is_byte_identical():
    """Catches: a frame or a list edited without `generate`; a generator that depends on the machine or on hashing."""
    assert generate.stale_files() == []
    assert {path.read_bytes() for path in generate.files()} == {text.encode() for text in generate.files().values()}
    known = {path.name for path in generate.files()} | {"README.md", "README.zh-CN.md"}
    assert {path.name for path in (generate.FOLDER / "utterances").iterdir()} <= known


def test_check_names_a_stale_file(tmp_path, monkeypatch, capsys):
    """Catches: --check that compares nothing, or that writes."""
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    with pytest.raises(LabError, match="en-test.jsonl"):
        generate.main(["--check"])
    assert list(tmp_path.iterdir()) == []
    generate.main([])
    generate.main(["--check"])
    assert "as the frames give it" in capsys.readouterr().out
    path = tmp_path / "utterances" / "en-test.jsonl"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(LabError, match="en-test.jsonl"):
        generate.main(["--check"])


def test_sets_are_large_enough_and_hold_every_intent():
    """Catches: a split that shrank, or one without an intent, a reason or a slot."""
    sizes = Counter((name, split) for name, split, _ in everything())
    assert all(sizes[name, "train"] >= 1_600 and sizes[name, "test"] >= 300 for name in SHOP)
    for name in SHOP:
        for split in SPLITS:
            items = data.load_understanding(name, split)
            counts = Counter(item.intent for item in items)
            assert set(counts) == set(INTENTS)
            assert max(counts.values()) <= 0.2 * len(items)  # no intent that one could always guess
            assert {slot for item in items for slot in item.slots} == set().union(*SLOTS_OF.values())
            if split != "validation":
                assert {item.slots["reason"] for item in items if "reason" in item.slots} == set(REASONS)


def test_splits_share_no_voice_template_text_or_order_number():
    """Catches: a voice in two splits; a frame copied to another voice; an order number that was trained on."""
    for name in SHOP:
        seen: dict[tuple[str, str], str] = {}
        ids = set()
        for split in SPLITS:
            for item in data.load_understanding(name, split):
                assert item.id not in ids
                ids.add(item.id)
                keys = [("voice", item.voice), ("text", same_value(item.text))]
                keys += [("order", item.slots["order_id"].casefold())] if "order_id" in item.slots else []
                for key in keys:
                    assert seen.setdefault(key, split) == split, key
    sources = [(frame.source, voice.split) for voice in load_voices() for frame in voice.frames]
    assert len({source for source, _ in sources}) == len(sources)


def test_values_are_copied_letter_by_letter():
    """Catches: a value that is not in its utterance; a span that is off by one; a label that is not canonical."""
    schema = json.loads((generate.FOLDER / "label.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    for path, text in generate.files().items():
        for line in text.splitlines() if path.suffix == ".jsonl" else []:
            row = json.loads(line)
            validator.validate(row["label"])
            assert row["text"] == row["text"].strip() and "  " not in row["text"], row
            for slot, value in row["label"]["slots"].items():
                start, end = row["spans"][slot]
                assert (row["text"][start:end] == value) == (slot != "reason"), row
            if "reason" in row["spans"]:
                start, end = row["spans"]["reason"]
                assert 0 <= start < end <= len(row["text"])
    for _, _, item in everything():
        assert json.loads(item.label) == {"intent": item.intent, "slots": item.slots}


def test_no_known_value_goes_unlabelled():
    """Catches: a guideline broken: a product, date, address or amount in the words of a frame that is not marked.

    Only what is marked {~...}, a second product or order, may stay unlabelled.
    """
    marked = {frame.id for voice in load_voices() for frame in voice.frames if "{~" in frame.source}
    values: dict[tuple[str, str], list[str]] = {}
    for language, kinds in lists().items():
        for kind, words in kinds.items():
            slot = "date" if kind.startswith("day") else kind.partition("_")[0]
            values.setdefault((language, slot), []).extend(words["common"] + words.get("test", []))
    wrong = []
    for _, _, item in everything():
        for slot in set(SLOTS_OF[item.intent]) - set(item.slots) if item.id.partition("#")[0] not in marked else ():
            known = values.get((item.language, slot), [])
            edge = r"\b" if item.language == "en" else ""
            wrong += [(value, item.text) for value in known if re.search(f"{edge}{re.escape(value)}{edge}", item.text)]
    assert wrong == []


@pytest.mark.parametrize(
    ("label", "error"),
    [
        ({"intent": "greeting", "slots": {}}, None),
        ({"intent": "return_item", "slots": {"reason": "damaged", "product": "kettle"}}, None),
        ({"intent": "greeting", "slots": {"product": "kettle"}}, "greeting has no slot product"),
        ({"intent": "retrun", "slots": {}}, "unknown intent"),
        ({"intent": "complaint", "slots": {"reason": "bad"}}, "unknown reason"),
        ({"intent": "complaint", "slots": {"colour": "red"}}, "unknown slot"),
        ({"intent": "complaint"}, "missing field slots"),
        ({"intent": "invoice", "slots": {"amount": ""}}, "short|non-empty|match"),
        ({"intent": "invoice", "slots": {"amount": 12}}, "not of type"),
        ({"intent": "invoice", "slots": {}, "mood": "bad"}, "mood"),
        (["invoice"], "a label is an object"),
    ],
)
def test_label_errors(label, error):
    """Catches: a wrong label that passes the schema, and a right one that does not."""
    errors = label_errors(label)
    assert bool(errors) == (error is not None) and re.search(error or "", " ".join(errors))


def test_label_json_is_canonical():
    """Catches: two texts for one label, which a model cannot learn."""
    one = label_json({"intent": "refund_status", "slots": {"amount": "￥5", "order_id": "KM1"}})
    assert one == label_json({"intent": "refund_status", "slots": {"order_id": "KM1", "amount": "￥5"}})
    assert one == '{"intent": "refund_status", "slots": {"order_id": "KM1", "amount": "￥5"}}'


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        ("send back the {prodcut}", "known slot"),
        ("the {product} is [broken](reason)", "known slot or reason"),
        ("the {product} is [broken](reason:borken)", "known slot or reason"),
        ("the {product} and the {product}", "cannot have"),
        ("my address is {address}", "cannot have"),
        ("the {product} is [broken", "belongs to no mark"),
    ],
)
def test_a_frame_that_is_wrong_is_named(tmp_path, frame, error):
    """Catches: a typing error in a frame that becomes part of the utterance."""
    folder = tmp_path / "en"
    folder.mkdir()
    path = folder / "someone.toml"
    path.write_text(
        f'description = "x"\nsplit = "train"\n[frames]\nreturn_item = """\n{frame}\n"""\n', encoding="utf-8"
    )
    with pytest.raises(ValueError, match=f"en/someone.toml: .*{error}"):
        read_voice(path)


def test_a_new_frame_leaves_the_others_alone(tmp_path):
    """Catches: one random generator for all, so that every new frame rewrites the whole set."""
    voice = next(voice for voice in load_voices() if voice.name == "en-angry_dad")
    more = [row for frame in voice.frames[3:] for row in generate.frame_rows(frame, voice)]
    every = [row for frame in voice.frames for row in generate.frame_rows(frame, voice)]
    assert more == every[-len(more) :]


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_datasheet_counts_what_is_there(readme):
    """Catches: frames added and the datasheet's tables left as they were."""
    text = (generate.FOLDER / readme).read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:1] == "|"]
    found = {tuple(row[1:]) for row in rows if len(row) == 6}
    for name in SHOP:
        for split in SPLITS:
            items = data.load_understanding(name, split)
            frames = {item.id.partition("#")[0] for item in items}
            numbers = [len({item.voice for item in items}), len(frames), len(items)]
            numbers += [round(sum(len(item.text) for item in items) / len(items))]
            numbers += [sum("reason" in item.slots for item in items)]
            assert tuple(f"{number:,}" for number in numbers) in found, (name, split)
    for intent in INTENTS[:11]:
        counts = [sum(item.intent == intent for name, _, item in everything() if name == shop) for shop in SHOP]
        row = next(row for row in rows if row[0].startswith(f"`{intent}`"))
        assert re.findall(r"\d+", row[2]) == [str(count) for count in counts], intent


def test_unknown_names():
    """Catches: a KeyError for a misspelt set or split."""
    with pytest.raises(LabError) as error:
        data.load_understanding("customer-service-fr")
    assert error.value.try_next == "customer-service-zh" or error.value.try_next == "customer-service-en"
    with pytest.raises(LabError, match="no split is called 'dev'"):
        data.load_understanding("customer-service-en", "dev")


def test_generate_runs_as_the_readme_says():
    """Catches: a module without a main."""
    answer = subprocess.run(
        [sys.executable, "-m", "data.customer_service.generate", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert (answer.returncode, answer.stdout) == (0, "everything is as the frames give it\n"), answer.stderr
