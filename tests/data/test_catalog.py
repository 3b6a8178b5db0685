"""The catalog and its command line. Each test names the bug that it catches."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import data
from data.__main__ import main
from data.catalog import builder
from labkit.errors import LabError

ROOT = Path(__file__).parents[2]
HEX = re.compile(r"[0-9a-f]{64}")


def run_data(*words: str, **environment: str) -> subprocess.CompletedProcess:
    """`python -m data ...` as a learner runs it."""
    changed = os.environ | environment
    return subprocess.run(
        [sys.executable, "-m", "data", *words], cwd=ROOT, env=changed, capture_output=True, text=True
    )


def test_entries_are_complete():
    """Catches: an entry without a licence, a publisher or a sum; a builder that does not exist."""
    assert {"tiny-shakespeare", "sanguo", "wikitext-2", "smollm2-135m-instruct"} <= data.catalog().keys()
    for asset in data.catalog().values():
        assert HEX.fullmatch(asset.sha256) and all(map(HEX.fullmatch, asset.files.values()))
        assert asset.licence and asset.publisher and asset.title and asset.language
        assert asset.kind in ("text", "model", "vectors", "pairs", "labels") and asset.members
        assert asset.archive in ("wheel", "sdist") and asset.download_bytes > 0 < asset.kept_bytes
        assert asset.entry == "" or asset.entry in asset.files
        assert builder(asset) is None or callable(builder(asset))
        assert asset.kind != "text" or asset.files  # a text is pinned byte for byte


def test_readmes_name_every_asset():
    """Catches: an asset added to the catalog and not to the documents."""
    for name in ("README.md", "README.zh-CN.md"):
        text = (ROOT / "data" / name).read_text(encoding="utf-8")
        assert [asset for asset in data.catalog() if f"`{asset}`" not in text] == []


def test_unknown_name_suggests_the_nearest():
    """Catches: a KeyError for a misspelt name."""
    with pytest.raises(LabError) as error:
        data.fetch("smolm2-135m")
    assert error.value.try_next == "smollm2-135m-instruct"
    with pytest.raises(LabError, match="is not a text"):
        data.load_text("all-minilm-l6-v2")


def test_list_fits_80_columns(tmp_path):
    """Catches: a table that wraps its numbers; `list` that needs the network or an existing cache."""
    answer = run_data("list", COLUMNS="80", COURSE_LAB_CACHE=str(tmp_path / "none"))
    table = answer.stdout.split("\ncache:")[0].splitlines()
    assert answer.returncode == 0 and max(map(len, table)) <= 80
    assert all(any(line.startswith(name) and "absent" in line for line in table) for name in data.catalog())
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("index", ["closed port", "no such host"])
def test_no_network_and_empty_cache(tmp_path, index):
    """Catches: pip's log as an error message; minutes of retries; advice that does not help."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/simple/" if index == "closed port" else "https://index.invalid/simple/"
    clean = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
    clean |= {
        "PIP_FIND_LINKS": "",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": url,
    }
    start = time.monotonic()
    answer = run_data("fetch", "tiny-shakespeare", COURSE_LAB_CACHE=str(tmp_path), **clean)
    assert answer.returncode == 2 and answer.stdout == "" and time.monotonic() - start < 30
    *waiting, error, advice = answer.stderr.splitlines()
    assert all(line.startswith("download tiny-shakespeare: 0 B") for line in waiting)  # on a slow machine
    assert (
        error.startswith("error: cannot download tiny-shakespeare (2.1 MB") and "cannot be reached" in error
    )
    assert advice.startswith("  try: ") and "PIP_INDEX_URL" in advice and "cache folder" in advice
    assert not [path for path in tmp_path.rglob("*.txt")]


@pytest.mark.parametrize(
    ("words", "message", "advice"),
    [
        (["ftech"], "unknown command ftech", "python -m data fetch"),
        (["fetch"], "which assets?", "python -m data fetch NAME"),
        (["fetch", "sangou"], "no asset is called 'sangou'", "sanguo"),
        (["fetch", "sanguo", "--sorce", "hub"], "unknown option --sorce", "--source"),
        (["fetch", "sanguo", "--source", "hubb"], "unknown source hubb", "--source hub"),
        (["path", "kjv"], "kjv is absent", "python -m data fetch kjv"),
    ],
)
def test_bad_command_lines(tmp_path, monkeypatch, words, message, advice):
    """Catches: a half-understood command line that downloads something else."""
    monkeypatch.setenv("COURSE_LAB_CACHE", str(tmp_path))
    with pytest.raises(LabError) as error:
        main(words)
    assert message in error.value.message and error.value.try_next.startswith(advice)


def test_verify_finds_damage_and_says_how_to_repair(tmp_path, monkeypatch, capsys):
    """Catches: `verify` that says ready for a changed file, or that ends with 0."""
    monkeypatch.setenv("COURSE_LAB_CACHE", str(tmp_path))
    assert main(["verify", "tiny-shakespeare"]) == 0 and "absent" in capsys.readouterr().out
    main(["fetch", "tiny-shakespeare"])
    main(["path", "tiny-shakespeare"])
    path = Path(capsys.readouterr().out.splitlines()[-1])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Citizen", b"Citizem", 1))
    with pytest.raises(LabError, match="1 asset is damaged: tiny-shakespeare") as error:
        main(["verify"])
    assert error.value.try_next == "python -m data fetch tiny-shakespeare"
    main(error.value.try_next.split()[3:])
    assert path.read_bytes() == content and main(["verify", "tiny-shakespeare"]) == 0
