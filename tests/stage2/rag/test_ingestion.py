"""Ingestion: only what changed, nothing lost on the way. Each test names the bug that it catches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import LabError
from stage1_foundations.embeddings.encoders import load_encoder
from stage2_rag_finetune_deploy.rag.docstore import Chunk, DocStore
from stage2_rag_finetune_deploy.rag.documents import load_documents
from stage2_rag_finetune_deploy.rag.ingestion import COLLECTION, Ingestion, plan_changes, sha256_of
from stage2_rag_finetune_deploy.vector_db.stores import open_store

pytestmark = pytest.mark.assets


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("minilm")


@pytest.fixture
def shop(tmp_path) -> Path:
    """A folder of files."""
    folder = tmp_path / "shop"
    (folder / "faq").mkdir(parents=True)
    (folder / "faq" / "returns.md").write_text("# Returns\n\nWithin 30 days.\n\n# Refunds\n\nFive working days.\n")
    (folder / "lamp.html").write_text("<html><body><h1>Lamp</h1><p>Charges over USB-C.</p></body></html>")
    (folder / "notes.txt").write_text("The kettle holds 1.7 litres.")
    (folder / ".draft.md").write_text("# Not this one")
    return folder


def ingest(index: Path, docs: Path, encoder, **options):
    with open_store("faiss", index / "store") as store:
        ingestion = Ingestion(index, store, encoder, **options)
        changes = ingestion.run(load_documents(str(docs)))
        return changes, store.open(COLLECTION).count(), ingestion.docs.chunks()


def test_files_become_chunks_with_their_place(tmp_path, shop, encoder):
    """Catches: hidden files read, ids that depend on the machine's folders, offsets that point elsewhere."""
    changes, count, chunks = ingest(tmp_path / "index", shop, encoder)
    assert sorted(changes.new) == ["faq/returns.md", "lamp.html", "notes.txt"]
    assert count == len(chunks) >= 4
    texts = {document.node_id: document.get_content() for document in load_documents(str(shop))}
    assert all(texts[chunk.document][chunk.start : chunk.stop] == chunk.text for chunk in chunks)


def test_a_second_run_does_nothing(tmp_path, shop, encoder, monkeypatch):
    """Catches: unchanged files embedded again; new ids for the same chunk."""
    _, _, before = ingest(tmp_path / "index", shop, encoder)
    monkeypatch.setattr(type(encoder), "encode", lambda *args: pytest.fail("encoded again"))
    changes, count, after = ingest(tmp_path / "index", shop, encoder)
    assert not (changes.new or changes.changed or changes.gone or changes.unfinished)
    assert len(changes.unchanged) == 3 and after == before and count == len(before)


def test_changed_and_deleted_files(tmp_path, shop, encoder):
    """Catches: old text that can still be found, a deleted file that stays."""
    ingest(tmp_path / "index", shop, encoder)
    (shop / "notes.txt").write_text("The kettle holds two litres now.")
    (shop / "lamp.html").unlink()
    changes, count, chunks = ingest(tmp_path / "index", shop, encoder)
    assert (changes.changed, changes.gone, changes.new) == (["notes.txt"], ["lamp.html"], [])
    assert count == len(chunks) and {chunk.document for chunk in chunks} == {"faq/returns.md", "notes.txt"}
    assert not [chunk for chunk in chunks if "1.7" in chunk.text]


@given(st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.sampled_from("xyz"), st.booleans())),
       st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xyz")))  # fmt: skip
def test_the_plan_leaves_nothing_out(known, wanted):
    """Catches: a document in no list, or in two, so that it is never written or written twice."""
    changes = plan_changes(known, wanted)
    stale = {*changes.changed, *changes.gone, *changes.unfinished}
    again = [id for id in changes.unfinished if id in wanted]
    written = [*changes.new, *changes.changed, *again]
    assert len(written) == len(set(written))
    kept = {id: sha256 for id, (sha256, _) in known.items() if id not in stale}
    assert kept | {id: wanted[id] for id in written} == wanted
    assert all(kept[id] == wanted[id] for id in changes.unchanged) and len(changes.unchanged) == len(kept)


KILLED = """
import os, sys
from pathlib import Path
from stage1_foundations.embeddings.encoders import load_encoder
from stage2_rag_finetune_deploy.rag import ingestion
from stage2_rag_finetune_deploy.rag.documents import load_documents
from stage2_rag_finetune_deploy.vector_db.stores import open_store

index, docs, moment = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
store = open_store("faiss", index / "store")
work = ingestion.Ingestion(index, store, load_encoder("minilm"))
place = {"entered": (work.encoder, "encode"), "stored": (work.docs, "confirm")}[moment]
setattr(*place, lambda *args: os.kill(os.getpid(), 9))
work.run(load_documents(docs))
"""


@pytest.mark.parametrize("moment", ["entered", "stored"])
def test_killed_in_the_middle(tmp_path, shop, encoder, moment):
    """Catches: vectors without a document, documents taken for written that never were, chunks twice."""
    index = tmp_path / "index"
    index.mkdir()
    root = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "-c", KILLED, str(index), str(shop), moment],
                          env=os.environ | {"PYTHONPATH": root}, capture_output=True)  # fmt: skip
    assert done.returncode == -9, done.stderr.decode()[-500:]
    assert DocStore(index / "documents.sqlite").chunks() == []  # nothing pending is served
    changes, count, chunks = ingest(index, shop, encoder)
    assert sorted(changes.unfinished) == ["faq/returns.md", "lamp.html", "notes.txt"]
    _, whole, same = ingest(tmp_path / "other", shop, encoder)
    assert chunks == same and count == whole == len(chunks)


def test_another_model_or_chunker_is_refused(tmp_path, shop, encoder):
    """Catches: vectors of two models in one index, which compare to nonsense in silence."""
    ingest(tmp_path / "index", shop, encoder)
    with pytest.raises(LabError, match="encoder") as error:
        ingest(tmp_path / "index", shop, load_encoder("e5"))
    assert "--rebuild" in error.value.try_next
    with pytest.raises(LabError, match="cap"):
        ingest(tmp_path / "index", shop, encoder, cap=100)


def test_a_lost_store_is_noticed(tmp_path, shop, encoder):
    """Catches: an index whose vectors were deleted answering with nothing."""
    ingest(tmp_path / "index", shop, encoder)
    with open_store("faiss", tmp_path / "index" / "store") as store:
        store.drop(COLLECTION)
    with pytest.raises(LabError, match="lost the vectors"):
        ingest(tmp_path / "index", shop, encoder)


def test_chunks_come_back_in_order(tmp_path):
    """Catches: chunk 10 before chunk 2."""
    store = DocStore(tmp_path / "documents.sqlite")
    chunks = [Chunk(f"c{n}", "d", n, n + 1, f"t{n}", f"t{n}", {"kind": "text"}) for n in range(12)]
    store.enter("d", "s", chunks)
    assert store.chunks() == []
    store.confirm(["d"])
    assert store.chunks() == chunks


def test_a_damaged_docstore_is_one_line(tmp_path):
    """Catches: sqlite's traceback."""
    (tmp_path / "documents.sqlite").write_bytes(b"not a database, by no means" * 50)
    with pytest.raises(LabError, match="documents.sqlite"):
        DocStore(tmp_path / "documents.sqlite").documents()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", '{"id": "x", "text": "t"}\n{"id": 3, "text": "t"}', "line 2: id and text must be text"),
        ("a.jsonl", '{"id": "x", "text": "t"}\n{"id": "x", "text": "u"}', "line 2: the id 'x' was there before"),
        ("a.jsonl", '{"id": "x"}', "line 1: not of the form"),
        ("a.jsonl", "x\n", "line 1: not of the form"),
        ("a.jsonl", "", "has no document"),
        ("b.pdf", "%PDF-1.4 broken", "b.pdf cannot be read"),
        ("empty.txt", "  \n", "is empty"),
        ("zeros.txt", "a\0b", "is not a text file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, reason):
    """Catches: a traceback, a line number that is off by one, a broken file skipped in silence."""
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(LabError) as error:
        load_documents(str(tmp_path / name))
    assert reason in error.value.message


def test_unreadable_files_can_be_skipped(shop, capsys):
    """Catches: one broken PDF that keeps a thousand files out, or one that vanishes without a word."""
    (shop / "broken.pdf").write_text("%PDF-1.4 broken")
    with pytest.raises(LabError, match="broken.pdf") as error:
        load_documents(str(shop))
    assert "--skip-unreadable" in error.value.try_next
    assert len(load_documents(str(shop), skip_unreadable=True)) == 3
    assert "skipped: broken.pdf" in capsys.readouterr().err


def test_mixed_encodings(tmp_path):
    """Catches: question marks where a Chinese file from Windows had text."""
    (tmp_path / "a.txt").write_bytes("退货须在三十天内。".encode("gb18030"))
    (tmp_path / "b.txt").write_bytes("﻿Größe 42".encode())
    texts = {document.node_id: document.get_content() for document in load_documents(str(tmp_path))}
    assert texts == {"a.txt": "退货须在三十天内。", "b.txt": "Größe 42"}


def test_an_empty_folder_and_an_unknown_name(tmp_path):
    """Catches: an empty index built without a word; a misspelt name taken for an empty folder."""
    with pytest.raises(LabError, match="no document"):
        load_documents(str(tmp_path))
    with pytest.raises(LabError, match="called squadd"):
        load_documents("squadd")


def test_the_kind_is_part_of_the_hash(tmp_path):
    """Catches: a file renamed from .txt to .md that keeps its old chunks."""
    lines = [json.dumps({"id": "x", "text": "# A\n\nb", "kind": kind}) for kind in ("text", "markdown")]
    hashes = set()
    for line in lines:
        (tmp_path / "a.jsonl").write_text(line)
        hashes.add(sha256_of(load_documents(str(tmp_path / "a.jsonl"))[0]))
    assert len(hashes) == 2
