"""The checks of the suite. Read interface.py first: every sentence there has one here."""

from dataclasses import replace

from labkit.errors import LabError
from stage3_agents_llmops.registry.conformance import WEIGHTS, Bench, check, expect, together
from stage3_agents_llmops.registry.interface import Conflict, Damaged, Refused, Unknown
from stage3_agents_llmops.registry.release import Lineage

PATH = "model/weights/model.safetensors"

# --- publishing and loading -----------------------------------------------------------------------------------------


@check()
def a_release_comes_back_byte_for_byte(bench: Bench) -> None:
    """Catches: flattened folders, text mode, a file that is left out, an evaluation that is not kept."""
    draft = bench.draft("hello")
    release = bench.registry.publish(draft)
    folder = bench.registry.load(release.version, bench.work / "out")
    assert (folder / PATH).read_bytes() == WEIGHTS and (folder / "graph/prompt.txt").read_text() == "hello"
    assert (folder / "evaluation.json").read_bytes() == draft.evaluation.read_bytes()
    listed = {file.path for file in release.manifest.files}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == listed | {"release.json"} and len(listed) == 5


@check()
def equal_content_is_one_version(bench: Bench) -> None:
    """Catches: a hash over paths or times; a pipeline that resumes and publishes everything twice."""
    first, again = bench.registry.publish(bench.draft("a")), bench.client().publish(bench.draft("a"))
    assert (again.version, again.sha256) == (first.version, first.sha256) == (1, first.manifest.sha256)
    other = bench.registry.publish(bench.draft("b"))
    assert other.version == 2 and other.sha256 != first.sha256
    note = bench.registry.publish(replace(bench.draft("b"), note="the same files, but not the same release"))
    assert note.version == 3


@check()
def another_client_sees_versions_in_order(bench: Bench) -> None:
    """Catches: a cache that another process never sees; "10" before "2"."""
    versions = bench.publish(*"abcdefghijkl")
    assert versions == list(range(1, 13)) == [release.version for release in bench.client().versions()]
    assert bench.client().get("11").manifest == bench.registry.get(11).manifest


@check()
def lineage_is_kept(bench: Bench) -> None:
    """Catches: a registry that knows what is live, but not what it was made of."""
    lineage = Lineage({"train": "1" * 64}, "c" * 40, "stage2/finetune/sft-1", None, "f" * 64)
    draft = bench.draft("a", lineage=lineage, metrics={"exact": 0.8}, note="warum nicht? 为什么不？")
    bench.registry.publish(draft)
    found = bench.client().get(1).manifest
    assert found.lineage == replace(lineage, evaluation=found.lineage.evaluation)
    assert len(found.lineage.evaluation) == 64 and found.metrics == {"exact": 0.8} and found.note == draft.note


@check()
def an_incomplete_release_is_refused(bench: Bench) -> None:
    """Catches: a model that is released without its prompt; a part that is an empty folder."""
    draft = bench.draft("a")
    (bench.work / "empty").mkdir()
    changed = {"rag": bench.work / "empty"}, {"graph": bench.work / "nowhere"}, {"tools": draft.parts["rag"]}
    for parts in ({"model": draft.parts["model"]}, *({**draft.parts, **change} for change in changed)):
        expect(LabError, bench.registry.publish, replace(draft, parts=parts))
    expect(LabError, bench.registry.publish, replace(draft, evaluation=bench.work / "no-report.json"))
    expect(LabError, bench.registry.publish, replace(draft, metrics={"exact": float("nan")}))
    assert bench.client().versions() == []


@check()
def what_is_unknown_is_said(bench: Bench) -> None:
    """Catches: None, the newest version, or a traceback for a name that nobody gave."""
    bench.publish("a")
    for ref in (2, "2", "champion"):
        expect(Unknown, bench.registry.get, ref)
        expect(Unknown, bench.registry.load, ref, bench.work / "out")
    expect(Unknown, bench.registry.set_alias, "challenger", 2)
    assert bench.registry.aliases() == {} and not (bench.work / "out").exists()


@check()
def a_version_does_not_change_with_its_source(bench: Bench) -> None:
    """Catches: a registry of links to the run's folder."""
    draft = bench.draft("a")
    bench.registry.publish(draft)
    (draft.parts["graph"] / "prompt.txt").write_text("edited later")
    folder = bench.registry.load(1, bench.work / "out")
    assert (folder / "graph/prompt.txt").read_text() == "a"
    (folder / "graph/prompt.txt").write_text("edited after loading")
    assert (bench.registry.load(1, bench.work / "again") / "graph/prompt.txt").read_text() == "a"


def _refuses_to_load(bench: Bench, replacement: bytes | None) -> None:
    bench.publish("a", "b")
    bench.damage(b"a", replacement)
    for client in (bench.registry, bench.client()):
        expect(Damaged, client.load, 1, bench.work / "out")
    assert not (bench.work / "out").exists(), "half a release was left in the target"
    assert [(problem.version, problem.path) for problem in bench.registry.verify()] == [(1, "graph/prompt.txt")]
    assert bench.registry.verify(2) == [] and bench.registry.load(2, bench.work / "good").is_dir()


@check()
def a_changed_file_is_refused_at_load(bench: Bench) -> None:
    """Catches: a check of sizes or times only: the changed file is as long as it was."""
    _refuses_to_load(bench, b"x")


@check()
def a_truncated_file_is_refused_at_load(bench: Bench) -> None:
    """Catches: a copy that stops at the end of the file and is content."""
    _refuses_to_load(bench, b"")


@check()
def a_missing_file_is_refused_at_load(bench: Bench) -> None:
    """Catches: a loader that takes what is there."""
    _refuses_to_load(bench, None)


@check()
def load_leaves_what_is_in_the_target(bench: Bench) -> None:
    """Catches: a load over somebody's work; a second load that trusts what the first one wrote."""
    bench.publish("a", "b")
    target = bench.registry.load(1, bench.work / "out")
    assert bench.registry.load(1, target) == target
    expect(LabError, bench.registry.load, 2, target)
    (target / PATH).write_bytes(WEIGHTS[:-1] + b"!")
    expect(Damaged, bench.registry.load, 1, target)
    mine = bench.work / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    expect(LabError, bench.registry.load, 1, mine)
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]


@check()
def publishing_at_once_gives_each_its_number(bench: Bench) -> None:
    """Catches: max + 1 read by two writers."""
    clients = [(bench.client(), bench.draft(label)) for label in "abcd"]
    done = together([lambda client=client, draft=draft: client.publish(draft) for client, draft in clients])
    assert sorted(release.version for release in done) == [1, 2, 3, 4], done
    assert [release.version for release in bench.registry.versions()] == [1, 2, 3, 4] and not bench.registry.verify()


# --- aliases --------------------------------------------------------------------------------------------------------


@check()
def an_alias_moves_and_everybody_sees_it(bench: Bench) -> None:
    """Catches: an alias that copies the release; a move that another client's cache hides."""
    other = bench.client()
    bench.publish("a", "b")
    assert bench.registry.set_alias("champion", 1).version == 1
    assert other.get("champion").version == 1
    bench.registry.set_alias("challenger", 2)
    bench.registry.set_alias("champion", 2)
    assert other.aliases() == {"challenger": 2, "champion": 2} and other.get("champion").version == 2
    assert (other.load("champion", bench.work / "out") / "graph/prompt.txt").read_text() == "b"


@check()
def names_that_cannot_be_aliases(bench: Bench) -> None:
    """Catches: an alias "2" that hides version 2, "v2" and "latest" that MLflow reserves, a path."""
    bench.publish("a")
    for name in ("", "2", "v2", "latest", "Champion", "../champion", "a b", "x" * 65):
        expect(LabError, bench.registry.set_alias, name, 1)
    assert bench.registry.aliases() == {}


@check()
def a_champion_needs_an_evaluation(bench: Bench) -> None:
    """Catches: the release that went live because nobody looked."""
    bench.registry.publish(bench.draft("a", evaluated=False))
    expect(Refused, bench.registry.set_alias, "champion", 1)
    assert bench.registry.aliases() == {}
    assert bench.registry.set_alias("challenger", 1).version == 1


@check("history")
def an_alias_does_not_go_to_a_damaged_version(bench: Bench) -> None:
    """Catches: a promotion or a rollback to files that are gone, noticed by the first customer."""
    bench.publish("a", "b")
    bench.registry.set_alias("champion", 1)
    bench.registry.set_alias("champion", 2)
    bench.damage(b"a", None)
    expect(Refused, bench.registry.rollback, "champion")
    expect(Refused, bench.registry.set_alias, "challenger", 1)
    assert bench.registry.aliases() == {"champion": 2}


@check("compare_and_set")
def the_second_writer_is_told(bench: Bench) -> None:
    """Catches: last writer wins; a condition that None switches off; a conflict that changes something."""
    bench.publish("a", "b", "c")
    bench.registry.set_alias("champion", 1, expected=None)
    expect(Conflict, bench.registry.set_alias, "champion", 2, expected=None)
    bench.registry.set_alias("champion", 2, expected=1)
    expect(Conflict, bench.client().set_alias, "champion", 3, expected=1)
    expect(Conflict, bench.registry.set_alias, "challenger", 3, expected=1)
    expect(Conflict, bench.registry.rollback, "champion", expected=3)
    assert bench.registry.aliases() == {"champion": 2}
    assert [change.version for change in bench.registry.history()] == [1, 2]


@check("compare_and_set")
def of_many_writers_one_wins(bench: Bench) -> None:
    """Catches: a condition that is read in one step and written in another."""
    versions = bench.publish("a", "b", "c", "d", "e")
    clients = [bench.client() for _ in range(4)]
    current, rounds = None, 6
    for _ in range(rounds):
        wishes = zip(clients, [version for version in versions if version != current], strict=False)
        done = together([lambda client=client, version=version, current=current:
                         client.set_alias("champion", version, expected=current)
                         for client, version in wishes])  # fmt: skip
        won = [change for change in done if not isinstance(change, Exception)]
        assert len(won) == 1 and sum(isinstance(error, Conflict) for error in done) == len(done) - 1, done
        current = bench.registry.aliases()["champion"]
        assert current == won[0].version
    assert len(bench.registry.history("champion")) == rounds


@check("history")
def every_move_is_remembered(bench: Bench) -> None:
    """Catches: "which version was in production when?" without an answer."""
    bench.publish("a", "b")
    bench.registry.set_alias("champion", 1, actor="ann", reason="first")
    bench.client().set_alias("challenger", 2, actor="bob")
    bench.registry.set_alias("champion", 2, actor="cyd", reason="won: 2 % better")
    bench.registry.rollback("champion", actor="dee", reason="errors")
    told = [(change.alias, change.previous, change.version, change.kind, change.actor, change.reason)
            for change in bench.client().history()]  # fmt: skip
    assert told == [("champion", None, 1, "set", "ann", "first"), ("challenger", None, 2, "set", "bob", ""),
                    ("champion", 1, 2, "set", "cyd", "won: 2 % better"),
                    ("champion", 2, 1, "rollback", "dee", "errors")]  # fmt: skip
    assert [change.alias for change in bench.registry.history("challenger")] == ["challenger"]
    assert all(change.time for change in bench.registry.history())


@check("rollback")
def rollback_goes_back_step_by_step(bench: Bench) -> None:
    """Catches: a second rollback that returns to the bad version; a rollback over another alias's moves."""
    bench.publish("a", "b", "c")
    expect(Unknown, bench.registry.rollback, "champion")
    for version in (1, 2, 3):
        bench.registry.set_alias("champion", version)
        bench.registry.set_alias("challenger", 4 - version)
    assert bench.registry.rollback("champion", expected=3).version == 2
    assert bench.registry.rollback("champion").version == 1
    expect(Refused, bench.registry.rollback, "champion")
    bench.registry.set_alias("champion", 3)
    assert bench.client().rollback("champion").version == 1
    assert bench.registry.aliases() == {"challenger": 1, "champion": 1}


@check("tamper_evident")
def a_rewritten_history_is_noticed(bench: Bench) -> None:
    """Catches: a log that anybody can edit afterwards."""
    bench.publish("a", "b")
    bench.registry.set_alias("champion", 1, actor="ann", reason="quarterly-review")
    bench.registry.set_alias("champion", 2, actor="bob")
    for path in [path for path in bench.place.rglob("*") if path.is_file()]:
        if b"quarterly-review" in (content := path.read_bytes()):
            path.write_bytes(content.replace(b"quarterly-review", b"somebody-else-it"))
    expect(Damaged, bench.client().history)
    expect(Damaged, bench.client().set_alias, "champion", 1)


# --- garbage --------------------------------------------------------------------------------------------------------


@check("rollback")
def garbage_collection_keeps_what_is_needed(bench: Bench) -> None:
    """Catches: a collection that takes the champion, or what a rollback would go to; numbers that are used again."""
    for label in "abcdef":
        bench.registry.publish(bench.draft(label, weights=WEIGHTS + label.encode()))
    for version in (2, 1, 3):
        bench.registry.set_alias("champion", version)
    bench.registry.set_alias("challenger", 4)
    before = bench.bytes()
    assert bench.registry.collect_garbage(keep=1, dry_run=True).versions == (2, 5) and bench.bytes() >= before
    gone = bench.registry.collect_garbage(keep=1)
    assert gone.versions == (2, 5) and gone.files >= 2 and gone.bytes >= 2 * len(WEIGHTS)
    assert bench.bytes() < before - 2 * len(WEIGHTS)
    assert [release.version for release in bench.client().versions()] == [1, 3, 4, 6]
    assert bench.registry.verify() == []
    expect(LabError, bench.registry.get, 2)
    assert bench.registry.rollback("champion").version == 1
    assert bench.registry.publish(bench.draft("b", weights=WEIGHTS + b"b")).version == 7
    assert bench.registry.collect_garbage(keep=9).versions == ()


@check("rollback")
def no_rollback_to_what_was_collected(bench: Bench) -> None:
    """Catches: an alias that points at a version without files."""
    bench.publish("a", "b", "c")
    for version in (1, 2, 3):
        bench.registry.set_alias("champion", version)
    assert bench.registry.collect_garbage(keep=1).versions == (1,)
    assert bench.registry.rollback("champion").version == 2
    expect(LabError, bench.registry.rollback, "champion")
    assert bench.registry.aliases() == {"champion": 2}


@check("deduplication")
def a_shared_file_is_stored_once(bench: Bench) -> None:
    """Catches: a new prompt that costs another copy of the model."""
    bench.publish("a")
    before = bench.bytes()
    bench.publish("b", "c")
    assert bench.bytes() - before < len(WEIGHTS) / 2 and len(bench.stored(WEIGHTS)) == 1
