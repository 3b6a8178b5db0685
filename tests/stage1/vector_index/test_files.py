"""Each test names the bug that it catches."""

import json

import faiss
import numpy as np
import pytest

from labkit.errors import LabError
from stage1_foundations.vector_index import (
    FlatIndex,
    HNSWIndex,
    IVFIndex,
    IVFPQIndex,
    ProductQuantizer,
    load_index,
)

MAKE = {
    "flat": lambda metric: FlatIndex(24, metric),
    "ivf": lambda metric: IVFIndex(24, metric, lists=32, nprobe=5),
    "pq": lambda metric: ProductQuantizer(24, metric, parts=6, bits=4),
    "ivf_pq": lambda metric: IVFPQIndex(24, metric, lists=16, parts=6, bits=4, nprobe=5),
    "ivf_pq_refine": lambda metric: IVFPQIndex(24, metric, lists=16, parts=6, bits=4, nprobe=5, refine=3),
    "hnsw": lambda metric: HNSWIndex(24, metric, neighbours=6, ef_construction=30, ef_search=33),
}


@pytest.fixture(params=list(MAKE))
def index(request, vectors, metric):
    """One of each kind, filled."""
    made = MAKE[request.param](metric)
    made.train(vectors)
    made.add(vectors[:2000])
    return made


@pytest.fixture
def saved(index, tmp_path):
    """Its file."""
    return index.save(tmp_path / "saved.index")


def test_loaded_index_answers_alike(index, saved, queries):
    """Catches: nprobe, ef or refine that falls back to the default; arrays in another order."""
    again = load_index(saved)
    assert type(again) is type(index) and len(again) == 2000 and again.metric == index.metric
    for found, expected in zip(again.search(queries, 10), index.search(queries, 10), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_loaded_index_can_grow(index, saved, vectors, queries):
    """Catches: an index that is only a picture of itself: levels, lists or codebooks missing after loading."""
    again = load_index(saved)
    index.add(vectors[2000:])
    again.add(vectors[2000:])
    for found, expected in zip(again.search(queries, 10), index.search(queries, 10), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_size_is_near_the_formula(index, saved):
    """Catches: padding or visited marks that are written to the file; a formula for another layout."""
    learnt_once = sum(
        array.nbytes for name, array in index.state()[1].items() if name in ("centroids", "codebooks", "starts")
    )
    measured = (saved.stat().st_size - learnt_once) / len(index)
    # the zip directory and the header: below 2.5 kB; HNSW: one level byte, and layers drawn at random
    assert index.bytes_per_vector() == pytest.approx(measured, abs=2.5, rel=0.01)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_flipped_byte_is_noticed(saved, place):
    """Catches: wrong neighbours, or a crash in compiled code, from a damaged disk."""
    content = bytearray(saved.read_bytes())
    content[int(place * len(content))] ^= 0xFF
    saved.write_bytes(content)
    with pytest.raises(LabError, match="damaged or not an index"):
        load_index(saved)


@pytest.mark.parametrize("keep", [0, 10, 5000, -1])
def test_a_truncated_file_is_noticed(saved, keep):
    """Catches: a traceback from zipfile."""
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(LabError, match="damaged or not an index"):
        load_index(saved)


def foreign_files(folder):
    """Files that are something else."""
    text = folder / "text.index"
    text.write_text("not an index\n")
    plain = folder / "plain.npz"
    np.savez(plain, vectors=np.zeros((3, 3)))
    array = folder / "array.npy"
    np.save(array, np.zeros(3))
    other = folder / "faiss.index"
    faiss.write_index(faiss.IndexFlatL2(4), str(other))
    header = folder / "header.npz"
    np.savez(header, header=np.array(json.dumps({"format": "something else"})))
    pickled = folder / "pickled.npz"
    np.savez(pickled, header=np.array([{"format": "course-lab vector index"}], dtype=object))
    return [text, plain, array, other, header, pickled]


def test_foreign_files(tmp_path):
    """Catches: FAISS's file, an npz of somebody else, a pickle that would run code."""
    for path in foreign_files(tmp_path):
        with pytest.raises(LabError, match="not an index of this lab"):
            load_index(path)


def test_no_file_and_a_folder(tmp_path):
    """Catches: a traceback for the commonest mistake."""
    with pytest.raises(LabError, match="there is no index at"):
        load_index(tmp_path / "nothing.index")
    with pytest.raises(LabError, match="is a folder"):
        load_index(tmp_path)


def test_another_model_or_dimension(tmp_path, vectors):
    """Catches: passages of one encoder searched with the questions of another."""
    index = FlatIndex(24)
    index.add(vectors)
    index.metadata["model"] = "minilm"
    path = index.save(tmp_path / "passages.index")
    assert load_index(path, dimensions=24, model="minilm").metadata == {"model": "minilm"}
    with pytest.raises(LabError, match="built with model minilm, not e5"):
        load_index(path, model="e5")
    with pytest.raises(LabError, match="24 dimensions, not 384"):
        load_index(path, dimensions=384)
    with pytest.raises(LabError, match="holds a flat index, not hnsw"):
        HNSWIndex.load(path)


def rewritten(path, target, change):
    """The file with `change(header, arrays)` done to it."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(str(arrays.pop("header")))
    change(header, arrays)
    np.savez(target, header=np.array(json.dumps(header)), **arrays)
    return target


def set_item(field, value):
    """An edit of an array, for `rewritten`."""
    return lambda header, arrays: arrays[field].__setitem__(0, value)


@pytest.mark.parametrize("kind, change", [
    ("hnsw", set_item("base_links", 10**6)), ("hnsw", set_item("levels", 200)),
    ("hnsw", lambda header, arrays: header["settings"].update(entry=10**6)),
    ("ivf", set_item("starts", 5)), ("ivf", set_item("ids", 10**6)), ("ivf", set_item("vectors", np.nan)),
    ("ivf", lambda header, arrays: arrays.pop("centroids")),
    ("ivf_pq", set_item("codes", 200)), ("pq", lambda header, arrays: arrays.update(codes=arrays["codes"][:, :5])),
    ("flat", lambda header, arrays: header["settings"].update(dimensions=23)),
])  # fmt: skip
def test_arrays_that_do_not_fit_together(kind, change, tmp_path, vectors):
    """Catches: compiled code that reads beyond the end of an array (it would crash without a word)."""
    index = MAKE[kind]("l2")
    index.train(vectors)
    index.add(vectors[:500])
    path = rewritten(index.save(tmp_path / "whole.index"), tmp_path / "edited.npz", change)
    with pytest.raises(LabError, match="damaged or not an index"):
        load_index(path)


def test_another_version_says_so(tmp_path, vectors):
    """Catches: a file of a later course read by an older one as if it were its own."""
    index = FlatIndex(24)
    index.add(vectors)
    path = index.save(tmp_path / "now.index")
    later = rewritten(path, tmp_path / "later.npz", lambda header, arrays: header.update(version=2))
    with pytest.raises(LabError, match="version 2 of the format"):
        load_index(later)


def test_a_failed_save_leaves_the_old_file(tmp_path, vectors, monkeypatch):
    """Catches: an index that is lost because the new one could not be written."""
    index = FlatIndex(24)
    index.add(vectors)
    path = index.save(tmp_path / "kept.index")
    before = path.read_bytes()
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        index.save(path)
    assert path.read_bytes() == before and [item.name for item in tmp_path.iterdir()] == ["kept.index"]


def test_empty_index_survives(tmp_path, metric):
    """Catches: division by zero or a missing array for an index that nothing was added to."""
    for kind, make in MAKE.items():
        index = load_index(make(metric).save(tmp_path / f"{kind}.index"))
        assert len(index) == 0
