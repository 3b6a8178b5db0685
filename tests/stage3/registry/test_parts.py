"""Manifest, rollback, log, store and timeline by themselves. Each test names the bug that it catches."""

import hashlib
import json
import os
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import LabError
from stage3_agents_llmops.registry.content_store import ContentStore
from stage3_agents_llmops.registry.differences import compare_releases
from stage3_agents_llmops.registry.event_log import START, EventLog, event_sha256, first_broken
from stage3_agents_llmops.registry.file_registry import FileRegistry, reachable
from stage3_agents_llmops.registry.interface import AliasChange, Damaged, protected, rollback_target
from stage3_agents_llmops.registry.mlflow_places import without_password
from stage3_agents_llmops.registry.registries import open_registry
from stage3_agents_llmops.registry.release import (
    Lineage,
    Manifest,
    StoredFile,
    check_path,
    manifest_sha256,
    parse_manifest,
)
from stage3_agents_llmops.registry.timeline import parse_time, spans, version_at
from stage3_agents_llmops.registry.unpack import manifest_text

PATHS = st.lists(st.from_regex(r"(model|rag|graph)/[a-z]{1,6}(/[a-z]{1,6}(\.txt)?)?", fullmatch=True), unique=True,
                 min_size=1, max_size=6)  # fmt: skip
FILES = PATHS.flatmap(lambda paths: st.tuples(*(
    st.builds(StoredFile, st.just(path), st.binary(min_size=32, max_size=32).map(bytes.hex), st.integers(0, 10**12))
    for path in paths)))  # fmt: skip
MANIFESTS = st.builds(
    Manifest, st.text(min_size=1, max_size=9), FILES,
    st.builds(Lineage, st.dictionaries(st.text(max_size=5), st.text(max_size=5)), st.none() | st.text(max_size=5)),
    st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False)), st.text(max_size=9),
)  # fmt: skip
MOVES = st.lists(st.integers(1, 5) | st.none(), max_size=12)  # None: a rollback


# --- manifest -------------------------------------------------------------------------------------------------------


def test_manifest_sha256_by_hand():
    """Catches: spaces, an order of keys that depends on the machine, escaped letters."""
    files = [{"path": "rag/b", "sha256": "2", "bytes": 2}, {"path": "model/ä", "sha256": "1", "bytes": 1}]
    one = {"name": "x", "files": files}
    other = {"files": list(reversed(files)), "name": "x"}
    text = '{"files":[{"bytes":1,"path":"model/ä","sha256":"1"},{"bytes":2,"path":"rag/b","sha256":"2"}],"name":"x"}'
    assert manifest_sha256(one) == manifest_sha256(other) == hashlib.sha256(text.encode()).hexdigest()
    assert one["files"] == files and files[0]["path"] == "rag/b", "the manifest that was given is changed"
    with pytest.raises(ValueError):
        manifest_sha256({"metrics": {"loss": float("nan")}})


@given(MANIFESTS)
def test_a_manifest_comes_back_from_its_text(manifest):
    """Catches: a fact that is not written; a number that loses digits."""
    again = parse_manifest(manifest_text(manifest), "x")
    assert again == manifest and again.sha256 == manifest.sha256


@given(MANIFESTS, st.data())
def test_any_change_changes_the_name(manifest, data):
    """Catches: a hash that leaves a fact out."""
    plain = manifest.as_dict()
    change = data.draw(st.sampled_from(["file", "bytes", "path", "note", "commit", "metric"]))
    if change in ("file", "bytes", "path"):
        file = data.draw(st.sampled_from(plain["files"]))
        key, value = {"file": ("sha256", "g" * 64), "bytes": ("bytes", -1), "path": ("path", "rag/\u2028")}[change]
        file[key] = value
    elif change == "metric":
        plain["metrics"] = {**plain["metrics"], "another metric": 1.0}
    else:
        (plain if change == "note" else plain["lineage"])[change] = "a change of more than nine letters"
    assert manifest_sha256(plain) != manifest.sha256


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../up", "model/../../up", "model\\x", "C:/x", "", ".", "model//x", "a/"]
)
def test_paths_that_lead_out_are_refused(path):
    """Catches: a release from a hub that writes to somebody's home."""
    with pytest.raises(ValueError):
        check_path(path)
    plain = Manifest("x", (StoredFile(path, "0" * 64, 1),)).as_dict()
    with pytest.raises(LabError, match="is no manifest"):
        parse_manifest(json.dumps(plain), "x")


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"schema": 2}', b"\xff", b'{"schema": 1, "name": "x", "files": 3}']
)
def test_what_is_no_manifest(text):
    """Catches: a KeyError."""
    with pytest.raises(LabError, match="x is no manifest of a release"):
        parse_manifest(text, "x")


# --- rollback -------------------------------------------------------------------------------------------------------


def played(moves):
    """The history that these moves make, with a stack of our own beside it."""
    changes, stack = [], []
    for move in moves:
        if move is None and len(stack) < 2:
            continue
        kind = "set" if move is not None else "rollback"
        if move is None:
            stack.pop()
        elif not stack or stack[-1] != move:
            stack.append(move)
        previous = changes[-1].version if changes else None
        changes.append(AliasChange(len(changes) + 1, "champion", stack[-1], previous, kind, ""))
    return changes, stack


@given(MOVES)
def test_rollback_target_is_a_stack(moves):
    """Catches: a rollback that is undone by the next one."""
    changes, stack = played(moves)
    assert rollback_target(changes) == (stack[-2] if len(stack) > 1 else None)


def test_rollback_target_by_hand():
    """Catches: back to 3 after 3 was rolled back; an extra step for a move that moved nothing."""
    def history(*moves):
        return played(moves)[0]

    assert rollback_target([]) is None and rollback_target(history(1)) is None
    assert rollback_target(history(1, 2, 3)) == 2
    assert rollback_target(history(1, 2, 3, None)) == 1
    assert rollback_target(history(1, 2, 3, None, None)) is None
    assert rollback_target(history(1, 2, 2, 2)) == 1
    assert rollback_target(history(1, 2, None, 3)) == 1


@given(st.lists(st.tuples(st.sampled_from(["champion", "challenger"]), st.integers(1, 5)), max_size=12))
def test_what_a_rollback_needs_is_protected(moves):
    """Catches: garbage collection that asks about one alias only."""
    changes, aliases = [], {}
    for alias, version in moves:
        changes.append(AliasChange(len(changes) + 1, alias, version, aliases.get(alias), "set", ""))
        aliases[alias] = version
    kept = protected(changes, aliases)
    for alias in aliases:
        target = rollback_target([change for change in changes if change.alias == alias])
        assert aliases[alias] in kept and (target is None or target in kept)
    assert len(kept) <= 2 * len(aliases)


# --- log ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Six events as they lie on the disk."""
    log = EventLog(tmp_path_factory.mktemp("log") / "events.jsonl")
    for number in range(6):
        log.append("set", {"alias": "champion", "version": number})
    return [json.loads(line) for line in log.path.read_text().splitlines()]


def test_first_broken_by_hand(chain):
    """Catches: a chain that is not one; a place that is off by one."""
    assert first_broken(chain) is None and first_broken([]) is None and chain[0]["previous"] == START
    changed = [dict(event) for event in chain]
    changed[3]["data"] = {"alias": "champion", "version": 99}
    assert first_broken(changed) == 3
    changed[3]["sha256"] = event_sha256(changed[3])  # a careful forger
    assert first_broken(changed) == 4
    assert first_broken(chain[1:]) == 0 and first_broken(chain[:2] + chain[3:]) == 2
    assert first_broken([chain[0], chain[2], chain[1]]) == 1
    renumbered = [dict(event, number=event["number"] + 1) for event in chain]
    assert first_broken([dict(event, sha256=event_sha256(event)) for event in renumbered]) == 0


@given(place=st.integers(0, 5), field=st.sampled_from(["number", "time", "kind", "data", "previous", "sha256"]))
def test_a_change_anywhere_breaks_the_chain(chain, place, field):
    """Catches: a field that the hash leaves out."""
    changed = [dict(event) for event in chain]
    changed[place][field] = 99 if field == "number" else "another"
    assert first_broken(changed) == place


def test_a_full_disk_leaves_the_log_as_it_was(bench, monkeypatch):
    """Catches: half a line that the next event is glued to."""
    bench.publish("a")
    before = bench.registry.log.path.read_bytes()
    real = os.write

    def full(descriptor, content):
        real(descriptor, content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        bench.registry.set_alias("champion", 1)
    monkeypatch.setattr(os, "write", real)
    assert bench.registry.log.path.read_bytes() == before
    assert bench.registry.set_alias("champion", 1).number == 2


def test_the_last_events_cannot_go_unnoticed(bench):
    """Catches: a log that was cut off and looks complete."""
    bench.publish("a", "b")
    lines = bench.registry.log.path.read_bytes().splitlines(keepends=True)
    bench.registry.log.path.write_bytes(lines[0])
    with pytest.raises(Damaged, match="it has 1 events, but 2 were written"):
        bench.client().versions()


# --- store, garbage, differences, timeline --------------------------------------------------------------------------


def test_reachable_by_hand():
    """Catches: manifests that are collected; files of the second release that are forgotten."""
    one = Manifest("x", (StoredFile("model/a", "a", 1), StoredFile("rag/b", "b", 1)))
    two = Manifest("x", (StoredFile("model/a", "a", 1), StoredFile("rag/c", "c", 1)))
    assert reachable({"1": one, "2": two}) == {"1", "2", "a", "b", "c"} and reachable({}) == set()


def test_the_store_repairs_a_damaged_file(tmp_path):
    """Catches: "it is there already", said of a file whose bytes have changed."""
    source = tmp_path / "weights"
    source.write_bytes(b"right")
    store = ContentStore(tmp_path / "store")
    file = store.add("model/weights", source)
    store.path(file.sha256).chmod(0o644)
    store.path(file.sha256).write_bytes(b"wrong")
    assert not store.intact(file.sha256)
    assert store.add("model/weights", source) == file and store.intact(file.sha256)


def test_a_stored_file_is_not_writable(bench):
    """Catches: an editor that opens a stored prompt and saves it."""
    bench.publish("a")
    assert {path.stat().st_mode & 0o222 for _, path in bench.registry.store.stored()} == {0}


def test_differences_by_hand(bench):
    """Catches: a part that changed because another one did; a figure that only one of them has."""
    bench.registry.publish(bench.draft("a", metrics={"exact": 0.5, "old": 1.0}))
    bench.registry.publish(bench.draft("b", metrics={"exact": 0.75, "new": 2.0}, note="second"))
    found = compare_releases(*bench.registry.versions())
    assert found.changed_parts == ("graph",) and [change.path for change in found.files] == ["graph/prompt.txt"]
    assert [change.what for change in found.files] == ["changed"]
    assert found.metrics == {"exact": (0.5, 0.75), "new": (None, 2.0), "old": (1.0, None)}
    assert found.lineage == {"note": (None, "second")}
    total = bench.registry.get(2).manifest.bytes
    assert found.shared_bytes == total - 1  # the prompt is one byte
    same = compare_releases(bench.registry.get(1), bench.registry.get(1))
    assert same.changed_parts == () and same.files == () and same.lineage == {}


def test_spans_by_hand():
    """Catches: a span that ends with another alias's move; a move from outside without a time."""
    def change(number, alias, version, kind="set"):
        return AliasChange(number, alias, version, None, kind, f"2026-11-29T10:0{number}:00+00:00")

    outside = AliasChange(0, "champion", 7, 2, "outside", "before then")
    changes = [change(1, "champion", 1), change(2, "challenger", 2), change(3, "champion", 2), outside,
               change(4, "champion", 1, "rollback")]  # fmt: skip
    found = spans(changes)
    assert [(span.alias, span.version, span.rollback) for span in found] == [
        ("champion", 1, False), ("challenger", 2, False), ("champion", 2, False), ("champion", 1, True)]  # fmt: skip
    assert [span.end and span.end.minute for span in found] == [3, None, 4, None]
    when = [datetime(2026, 11, 29, 10, minute, 30, tzinfo=UTC) for minute in range(5)]
    assert [version_at(changes, "champion", each) for each in when] == [None, 1, 1, 2, 1]
    assert parse_time("2026-11-29T18:30:00+08:00") == datetime(2026, 11, 29, 10, 30, tzinfo=UTC)


def test_places(tmp_path, monkeypatch):
    """Catches: a password in an error message; a database that is asked for 100 seconds."""
    assert isinstance(open_registry(tmp_path / "new"), FileRegistry) and not (tmp_path / "new").exists()
    assert without_password("postgresql://me:p@ss@host/x") == "postgresql://***@host/x"
    assert without_password("sqlite:///a.db") == "sqlite:///a.db"
    for url in ("postgresql+psycopg://me:secret@127.0.0.1:9/x", "http://me:secret@127.0.0.1:9"):
        with pytest.raises(LabError, match="no MLflow answers at") as raised:
            open_registry(url, artifacts=str(tmp_path))
        assert "secret" not in str(raised.value)
