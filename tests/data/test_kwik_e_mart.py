"""mindmeld's utterances. Each test names the bug that it catches."""

from collections import Counter

import pytest

import data
from data.kwik_e_mart import ENTITIES, leaked_test_lines, parse_line, read_lines, same_text, split_lines

SPLITS = ("train", "validation", "test")


def test_a_marked_line_becomes_text_and_slots():
    """Catches: marks left in the text; non-breaking spaces kept; roles lost, so that two accounts are one slot."""
    line = parse_line(
        "Move\xa0{5k|sys_amount-of-money} from my {savings|account_type|origin} to {checking|account_type|dest} ", "x"
    )
    assert line.text == "Move 5k from my savings to checking"
    assert line.slots == {"amount": "5k", "origin_account": "savings", "destination_account": "checking"}
    assert parse_line("  \xa0", "x") is None
    assert parse_line("call {a|store_name} and {b|store_name}", "x") is None
    with pytest.raises(ValueError, match="unknown entity colour"):
        parse_line("the {red|colour} one", "x")


def write(folder, intent, name, *lines):
    path = folder / "shop" / intent / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")


def test_split_takes_the_leak_out(tmp_path):
    """Catches: a test text that is trained on with other capitals; the same text twice; an intent without test."""
    write(tmp_path, "greet", "train", "Hi!", "hi", "HELLO there", *(f"hey number {number}" for number in range(30)))
    write(tmp_path, "greet", "test", "hi", "hi.", "good day")
    write(tmp_path, "pay", "train", *(f"pay {{{number}|sys_amount-of-money}}" for number in range(8)))
    splits = split_lines(tmp_path)
    assert [line.text for line in splits["test"]] == ["hi.", "good day", "pay 0", "pay 4"]
    assert len(splits["train"]) + len(splits["validation"]) == 31 + 6
    assert leaked_test_lines(tmp_path) == (1, 3)


@pytest.mark.assets
def test_the_packages_own_set():
    """Catches: another version of the package, a file that is not read, a leak, a label that is not in its text."""
    items = {split: data.load_understanding("kwik-e-mart", split) for split in SPLITS}
    assert {split: len(some) for split, some in items.items()} == {"train": 619, "validation": 69, "test": 134}
    keys = Counter(same_text(item.text) for some in items.values() for item in some)
    assert max(keys.values()) == 1
    intents = {"exit", "find_nearest_store", "get_store_hours", "get_store_number", "greet", "help", "transfer_money"}
    for some in items.values():
        assert {item.intent for item in some} == intents
        for item in some:
            assert set(item.slots) <= set(ENTITIES.values()) and "\xa0" not in item.text and item.text.strip()
            assert all(value in item.text for value in item.slots.values())
    folder = data.fetch("kwik-e-mart")
    assert leaked_test_lines(folder) == (63, 133)
    assert len(list(read_lines(folder, "train"))) == 1276
