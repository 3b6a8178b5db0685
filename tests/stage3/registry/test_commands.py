"""The command line as a user types it. Each test names the bug that it catches."""

import json
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from release_folders import write_release

from stage3_agents_llmops.registry.file_registry import FileRegistry
from stage3_agents_llmops.registry.release_commands import PublishConfig, draft_from


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "store"


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A registry to copy, with versions 1 (champion) and 2; what `release_folder` gives, published with a note."""
    registry = FileRegistry(tmp_path_factory.mktemp("filled") / "store")
    for label in "ab":
        folder = write_release(tmp_path_factory.mktemp("releases") / label, label)
        config = PublishConfig(release=folder, note=f"note {label}")
        registry.publish(draft_from(config, registry))
    registry.set_alias("champion", 1, actor="ann", reason="first")
    return registry.folder


@pytest.fixture
def shop(cli, filled, store):
    """`shop(words)` runs a command on a registry with versions 1 (champion) and 2."""
    shutil.copytree(filled, store)
    return lambda *words: cli(*words, "--registry", store)


def test_publish_list_show(shop, store, release_folder):
    """Catches: a second version of the same content; a list without aliases; a release without its files."""
    code, out, _ = shop("publish", "--release", release_folder("a"), "--note", "note a")
    assert code == 0 and "is there already as version 1" in out
    code, out, _ = shop("list")
    rows = out.splitlines()
    assert code == 0 and len(rows) == 3 and "champion" in rows[1] and "note b" in rows[2]
    code, out, _ = shop("show", "--ref", "champion")
    assert code == 0 and FileRegistry(store).get(1).sha256 in out
    assert "model/model.safetensors" in out and "exact        0.75" in out and "latency      2" in out


def test_publish_part_by_part(cli, store, release_folder):
    """Catches: options that a folder has and single parts have not; a parent or data that are not kept."""
    folder, sha256 = release_folder("a"), "ab" * 32
    parts = ("--model", folder / "model", "--rag", folder / "rag" / "rag.json", "--graph", folder / "graph")
    origin = ("--data", f"train={sha256}", "--run", "stage2/finetune/sft-1", "--commit", "c" * 40)
    code, _, err = cli("publish", *parts, *origin, "--registry", store)
    assert code == 0, err
    release = FileRegistry(store).get(1)
    assert {file.path for file in release.manifest.files} == {
        "graph/prompt.txt", "model/model.safetensors", "rag/rag.json"}  # fmt: skip
    assert (release.manifest.lineage.data, release.manifest.lineage.commit) == ({"train": sha256}, "c" * 40)
    assert cli("publish", "--release", release_folder("b"), "--registry", store, "--parent", 1)[0] == 0
    assert FileRegistry(store).get(2).manifest.lineage.parent == release.sha256


def test_diff_says_which_part(shop, release_folder):
    """Catches: "everything changed", because the evaluation did."""
    code, out, _ = shop("diff", "--old", "champion", "--new", 2)
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "the same" in rows["model"] and "the same" in rows["rag"] and "changed" in rows["graph"]
    assert "graph/prompt.txt" in rows["changed"] and "note a -> note b" in rows["origin"]
    shop("publish", "--release", release_folder("c", weights=b"other", evaluated=False))
    code, out, _ = shop("diff", "--old", 2)
    assert "removed  evaluation.json" in out and "exact: 0.75 -> none" in out
    assert "changed  model/model.safetensors   7.0 kB -> 5 B" in out


def test_promote_rollback_history(shop, tmp_path):
    """Catches: a condition that is not passed on; a history without who and why; a figure that is not drawn."""
    code, _, err = shop("promote", "--version", 2, "--expected", 2)
    assert code == 2 and "champion points at version 1, not at version 2: somebody was quicker" in err
    code, out, _ = shop("promote", "--version", 2, "--alias", "challenger", "--expected", "none")
    assert code == 0 and "challenger points at version 2; it was new" in out
    assert shop("promote", "--version", "challenger", "--expected", 1, "--reason", "better")[0] == 0
    code, out, _ = shop("rollback", "--expected", 2, "--reason", "errors")
    assert code == 0 and "champion points at version 1; it pointed at version 2" in out
    code, out, _ = shop("history", "--figure", tmp_path / "timeline.png")
    assert code == 0 and "first" in out and "ann" in out and "better" in out and "rollback" in out
    assert (tmp_path / "timeline.png").stat().st_size > 5_000
    code, out, _ = shop("history", "--alias", "challenger")
    assert code == 0 and "better" not in out
    code, _, err = shop("rollback")
    assert code == 2 and "champion was never anything but version 1" in err


def test_what_was_in_production_when(shop, store):
    """Catches: the present for every time; another zone's time taken for UTC."""
    shop("promote", "--version", 2)
    first, second = (change.time for change in FileRegistry(store).history("champion"))
    assert "champion was version 1" in shop("history", "--at", first)[1]
    assert "champion was version 2" in shop("history", "--at", second)[1]
    assert "champion was version 2" in shop("history", "--at", "2099-01-01")[1]
    assert "champion did not exist yet" in shop("history", "--at", "2020-01-01T10:00")[1]
    there = second.replace("+00:00", "-01:00")  # an hour later
    assert "champion was version 2" in shop("history", "--at", there)[1]
    before = second.replace("+00:00", "+01:00")
    assert "champion did not exist yet" in shop("history", "--at", before)[1]


def test_load_verify_gc(shop, store, release_folder, tmp_path):
    """Catches: a damaged registry that verifies; a dry run that removes; a collection that takes the champion."""
    code, out, _ = shop("load", "--target", tmp_path / "out")
    assert code == 0 and (tmp_path / "out" / "graph" / "prompt.txt").read_text() == "a"
    assert "2 releases" in shop("verify")[1]
    for label in "cdef":
        shop("publish", "--release", release_folder(label))
    code, out, _ = shop("gc", "--keep", 2, "--dry-run")
    assert code == 0 and "would go: versions 2, 3, 4" in out
    assert "removed: versions 2, 3, 4" in shop("gc", "--keep", 2)[1]
    assert [release.version for release in FileRegistry(store).versions()] == [1, 5, 6]
    file = next(file for file in FileRegistry(store).get(1).manifest.files if file.path == "graph/prompt.txt")
    stored = FileRegistry(store).store.path(file.sha256)
    stored.chmod(0o644)
    stored.write_text("x")
    code, out, _ = shop("verify")
    assert code == 2 and "version 1: graph/prompt.txt is changed" in out
    code, _, err = shop("load", "--ref", 1, "--target", tmp_path / "again")
    assert code == 2 and "graph/prompt.txt was changed after it was published" in err
    assert not (tmp_path / "again").exists()


def test_release_without_evaluation(cli, store, release_folder):
    """Catches: a champion that nobody has looked at."""
    cli("publish", "--release", release_folder("a", evaluated=False), "--registry", store)
    assert "(not evaluated)" in cli("list", "--registry", store)[1]
    code, _, err = cli("promote", "--version", 1, "--registry", store)
    assert code == 2 and err.startswith("error: version 1 was never evaluated, so it cannot become champion")
    assert cli("promote", "--version", 1, "--alias", "challenger", "--registry", store)[0] == 0


def test_locked(shop, store):
    """Catches: a command that hangs."""
    with FileLock(store / "lock"):
        code, _, err = shop("promote", "--version", 2, "--patience", 0.1)
    assert code == 2 and "is locked by process" in err and err.count("\n") == 2


@pytest.mark.parametrize(("words", "error", "advice"), [
    (("publish",), "publish what?", "--release FOLDER, or --model, --rag and --graph"),
    (("publish", "--release", "nowhere"), "there is no release's folder nowhere", None),
    (("publish", "--model", "nowhere", "--rag", "nowhere", "--graph", "nowhere"),
     "there is no nowhere for the part model", "--model FILE-OR-FOLDER"),
    (("publish", "--model", "m"), "a release without a part: no rag", None),
    (("publish", "--model", "m", "--data", "train"), "--data train has no SHA-256", None),
    (("publish", "--model", "m", "--parent", "shadow"), "the registry has no alias shadow", None),
    (("publish", "--model", "m", "--evaluation", "none.json"), "there is no evaluation report at none.json", None),
    (("show", "--ref", "shadow"), "the registry has no alias shadow", "one of: 1, 2, champion"),
    (("show", "--ref", "7"), "the registry has no version 7", "one of: 1, 2, champion"),
    (("diff", "--new", "7"), "the registry has no version 7", None),
    (("load",), "where to?", None),
    (("load", "--target", "m"), "{tmp}/m holds something else", "--target with a folder that does not exist yet"),
    (("verify", "--ref", "shadow"), "the registry has no alias shadow", None),
    (("gc", "--keep", "0"), "--keep 0 is not possible", "a number from 1 on"),
    (("promote",), "promote what?", None),
    (("promote", "--version", "7"), "the registry has no version 7", None),
    (("promote", "--version", "2", "--alias", "Latest"), "'Latest' cannot be an alias", None),
    (("promote", "--version", "2", "--expected", "one"), "--expected one is no version", "--expected 3, none or any"),
    (("rollback", "--alias", "shadow"), "the registry has no alias shadow", None),
    (("history", "--alias", "shadow"), "there is no alias shadow", "one of: champion"),
    (("history", "--at", "tuesday"), "tuesday is no time", "--at 2026-11-29T10:30"),
    (("history", "--name", "other"), None, None),
    (("publish", "--model", "m", "--rag", "m", "--graph", "m", "--name", "other"),
     "the registry {tmp}/store has the releases of customer-service, not of other", None),
])  # fmt: skip
def test_bad_input_is_two_lines(shop, tmp_path, monkeypatch, words, error, advice):
    """Catches: a traceback, or an answer to a question that was not asked."""
    monkeypatch.chdir(tmp_path)
    Path("m").mkdir()
    Path("m/weights").write_bytes(b"1")
    code, _, err = shop(*(word.replace("{tmp}", str(tmp_path)) for word in words))
    if error is None:
        assert code == 0
        return
    lines = err.splitlines()
    error = error.replace("{tmp}/m", "m").replace("{tmp}", str(tmp_path))
    assert code == 2 and lines[0] == f"error: {error}", err
    assert lines[1].startswith("  try: ") and (advice is None or lines[1] == f"  try: {advice}") and len(lines) == 2


@pytest.mark.parametrize(("place", "error"), [
    ("nowhere", "there is no registry at nowhere"),
    ("sqlite:///nowhere.db", "there is no registry at nowhere.db"),
    ("file.txt", "{tmp}/file.txt is a file, not the folder of a registry"),
    ("mine", "{tmp}/mine is no registry: it holds thesis.tex"),
    ("ftp://host/registry", "no registry at ftp://host/registry: ftp is not known"),
])  # fmt: skip
@pytest.mark.parametrize("command", ["list", "publish"])
def test_wrong_place(cli, tmp_path, monkeypatch, release_folder, place, error, command):
    """Catches: "no releases yet" for a path with a typing mistake; a registry spread over somebody's thesis."""
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("x")
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("x")
    words = ("--release", release_folder("a")) if command == "publish" else ()
    if command == "publish" and "nowhere" in place:
        return  # it begins there
    code, _, err = cli(command, *words, "--registry", place)
    assert code == 2 and err.splitlines()[0] == f"error: {error.replace('{tmp}', str(tmp_path))}", err
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.tex"] and not Path("nowhere").exists()


def test_nothing_yet(cli, tmp_path):
    """Catches: a traceback on the first day."""
    code, _, err = cli("list")
    assert code == 2 and "publish, or demo" in err
    (tmp_path / "empty").mkdir()
    code, out, _ = cli("list", "--registry", tmp_path / "empty")
    assert code == 0 and "no releases yet" in out
    assert "no alias has moved yet" in cli("history", "--registry", tmp_path / "empty")[1]


def test_mlflow_by_the_same_commands(cli, tmp_path, mlflow_maker, release_folder):
    """Catches: commands that only know the course's own registry; an MLflow file that cannot be read."""
    (tmp_path / "place").mkdir()
    url = mlflow_maker(tmp_path / "place").url
    for label in "ab":
        assert cli("publish", "--release", release_folder(label), "--registry", url)[0] == 0
    assert cli("promote", "--version", 1, "--registry", url)[0] == 0
    assert cli("promote", "--version", 2, "--expected", 1, "--registry", url, "--reason", "better")[0] == 0
    code, _, err = cli("promote", "--version", 2, "--expected", 1, "--registry", url)
    assert code == 2 and "somebody was quicker" in err
    assert "champion points at version 1" in cli("rollback", "--registry", url)[1]
    code, out, _ = cli("history", "--registry", url)
    assert code == 0 and "better" in out and "rollback" in out
    assert cli("load", "--registry", url, "--target", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "graph" / "prompt.txt").read_text() == "a"
    (tmp_path / "text.db").write_text("not a database " * 100)
    code, _, err = cli("list", "--registry", f"sqlite:///{tmp_path}/text.db")
    assert code == 2 and "no MLflow answers at" in err and "file is not a database" in err and err.count("\n") == 2


def test_a_move_made_elsewhere_is_shown(cli, tmp_path, mlflow_maker, release_folder):
    """Catches: a history that looks whole although somebody used MLflow's own page."""
    (tmp_path / "place").mkdir()
    registry = mlflow_maker(tmp_path / "place")
    for label in "ab":
        cli("publish", "--release", release_folder(label), "--registry", registry.url)
    cli("promote", "--version", 1, "--registry", registry.url, "--actor", "long@" + 12 * "machine-")
    registry.client.set_registered_model_alias("customer-service", "champion", "2")
    code, out, _ = cli("history", "--registry", registry.url)
    assert code == 0 and "outside" in out.splitlines()[-1] and "not made by this registry" in out


def test_demo(cli, tmp_path):
    """Catches: a demo whose figures leave their bands, and a registry that the other commands cannot read."""
    code, out, err = cli("demo", "--preset", "smoke")
    assert code == 0, err
    assert "outside" not in out and "somebody was quicker" in out
    folder = (tmp_path / "runs" / "stage3" / "registry" / "latest-demo").resolve()
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["status"] == "finished" and len(report["figures"]) == 2 and len(report["learnt"]) == 2
    assert report["metrics"]["half_versions"]["value"] == 0 and report["metrics"]["damage_found"]["value"] == 4
    assert all((folder / figure["path"]).stat().st_size > 5_000 for figure in report["figures"])
    code, out, _ = cli("history", "--alias", "champion", "--registry", folder / "store")
    assert code == 0 and [line.split()[4] for line in out.splitlines()[1:]] == ["1", "2", "3", "2", "1", "5"]
    assert cli("verify", "--registry", folder / "store")[0] == 0


def test_compare(cli, tmp_path):
    """Catches: one of two that is not measured."""
    code, out, err = cli("compare", "--preset", "smoke")
    assert code == 0, err
    folder = (tmp_path / "runs" / "stage3" / "registry" / "latest-compare").resolve()
    metrics = json.loads((folder / "report.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["files_failed"]["value"] == metrics["mlflow_failed"]["value"] == 0
    assert metrics["files_passed"]["value"] == metrics["mlflow_passed"]["value"] == 3
    assert metrics["files_megabytes"]["value"] < 0.7 < 1.5 < metrics["mlflow_megabytes"]["value"]
    rows = {line.split("  ")[0]: line.split()[-2:] for line in out.splitlines()}
    assert rows["tamper_evident"] == ["yes", "no"] and rows["compare_and_set"] == ["yes", "yes"]


LEARNERS = """
from stage3_agents_llmops.registry.file_registry import FileRegistry

class LastWins(FileRegistry):
    def set_alias(self, alias, version, *, expected=None, actor="", reason=""):
        return super().set_alias(alias, version, actor=actor, reason=reason)

def good(folder):
    return FileRegistry(folder)

def bad(folder):
    return LastWins(folder)
"""


def test_conformance_of_a_learners_registry(cli, tmp_path, monkeypatch):
    """Catches: a suite that only knows the lab's registries; exit code 0 for a failed check."""
    monkeypatch.chdir(tmp_path)
    Path("learners_registry.py").write_text(LEARNERS)
    only = ("--only", "the_second_writer_is_told, every_move_is_remembered")
    code, out, _ = cli("conformance", "--target", "learners_registry:good", *only)
    assert code == 0 and "learners_registry:good: 2 passed" in out
    code, out, _ = cli("conformance", "--target", "learners_registry:bad", *only)
    assert code == 2 and "1 passed, 1 failed" in out and "Conflict was expected" in " ".join(out.split())
    for target, error in (("flies", "there is no registry flies"), ("nothing:make", "there is no module nothing"),
                          ("learners_registry:none", "learners_registry has no none")):  # fmt: skip
        code, _, err = cli("conformance", "--target", target)
        assert code == 2 and err.startswith(f"error: {error}\n"), err
    code, _, err = cli("conformance", "--only", "the_second_writer_is_tould")
    assert code == 2 and "try: --only the_second_writer_is_told" in err


def test_a_rewritten_history_is_refused_by_every_command(shop, store):
    """Catches: a command that goes on with half of the truth."""
    log = store / "events.jsonl"
    log.write_text(log.read_text().replace('"reason":"first"', '"reason":"worst"'))
    for words in (("list",), ("history",), ("promote", "--version", 2), ("rollback",), ("gc",), ("verify",)):
        code, _, err = shop(*words)
        assert code == 2 and "was tampered with: line 3 was changed" in err, words


def test_two_files_cut_off_alike_are_noticed(shop, store):
    """Catches: a chain that does not know where it ended."""
    lines = (store / "events.jsonl").read_text().splitlines(keepends=True)
    (store / "events.jsonl").write_text("".join(lines[:-1]))
    code, _, err = shop("list")
    assert code == 2 and "it has 2 events, but 3 were written" in err


