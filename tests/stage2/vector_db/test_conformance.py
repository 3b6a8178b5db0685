"""What every store promises (store.py), asked of each. A test's docstring names the bug that it catches."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from labkit.errors import LabError
from stage2_rag_finetune_deploy.vector_db import And, CollectionSpec, Eq, In, Not, Or, Range, Record
from stage2_rag_finetune_deploy.vector_db.exact import exact_neighbours, recall_at_k, unit_rows
from stage2_rag_finetune_deploy.vector_db.filters import evaluate
from stage2_rag_finetune_deploy.vector_db.fusion import rrf_fuse
from tests.stage2.vector_db.conftest import DIMENSIONS, ROWS, second_client
from tests.stage2.vector_db.strategies import filters


def ids(hits) -> list[str]:
    return [hit.id for hit in hits]


# --- reading ----------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was_written(docs, records):
    """Catches: normalised vectors handed out as the original, text cut or escaped, an int that became a float."""
    wanted = [records[i] for i in (0, 3, 7, ROWS - 1)]
    found = docs.get(["doc-3", "doc-0", "nobody", f"doc-{ROWS - 1}", "doc-7"])
    assert ids(found) == ["doc-3", "doc-0", f"doc-{ROWS - 1}", "doc-7"]
    for one in found:
        original = next(record for record in wanted if record.id == one.id)
        np.testing.assert_array_equal(one.vector, original.vector)
        assert (one.text, dict(one.fields)) == (original.text, original.fields)
        assert [type(value) for value in one.fields.values()] == [type(v) for v in original.fields.values()]


def test_count_of_everything(docs):
    """Catches: a count that is an estimate, or misses what was written last."""
    assert docs.count() == ROWS


def test_search_finds_the_true_neighbours_and_their_cosines(docs, records):
    """Catches: inner product for cosine, distances for scores, an index that lost rows."""
    vectors = np.stack([record.vector for record in records])
    queries = np.random.default_rng(6).normal(size=(20, DIMENSIONS)).astype(np.float32)
    answers = [docs.search(query * 3, 10) for query in queries]
    truth = exact_neighbours(queries, vectors, 10)
    named = [[f"doc-{row}" for row in rows] for rows in truth]
    assert recall_at_k([ids(hits) for hits in answers], named) >= 0.98
    for query, hits in zip(queries, answers, strict=True):
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        rows = [int(hit.id.split("-")[1]) for hit in hits]
        np.testing.assert_allclose(scores, unit_rows(vectors[rows]) @ unit_rows(query), atol=1e-5)


def test_hits_carry_text_and_fields(docs, records):
    """Catches: a hit with the text of another row."""
    hit = docs.search(records[11].vector, 1)[0]
    assert (hit.id, hit.text, dict(hit.fields)) == ("doc-11", records[11].text, records[11].fields)


@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.generate],
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(where=filters)
def test_a_filter_means_the_same_in_every_store(docs, records, where):
    """Catches: wrong escapes, `not` that binds too tightly, floats compared as text, an empty `in` that matches all."""
    passing = {record.id for record in records if evaluate(where, record.fields)}
    assert docs.count(where) == len(passing)
    found = ids(docs.search(records[0].vector, 20, where))
    assert len(found) == min(20, len(passing)) and set(found) <= passing


def test_a_filter_narrows_before_the_best_are_taken(docs, records):
    """Catches: the k nearest first and the filter after, which finds nothing for a rare value."""
    where = In("year", [2024 - 12 * (24 % 7)]) & Eq("draft", True)
    passing = [record.id for record in records if evaluate(where, record.fields)]
    assert 0 < len(passing) < 8
    assert sorted(ids(docs.search(records[1].vector, 10, where))) == sorted(passing)
    assert {hit.fields["draft"] for hit in docs.search_text("badger otter heron", 10, where)} <= {True}


@pytest.mark.parametrize("nothing", [In("language", []), Or(), And(Eq("draft", True), In("year", ())), Not(And())])
def test_a_filter_that_nothing_passes(docs, records, nothing):
    """Catches: an empty list of permissions that lets everything through."""
    assert docs.search(records[0].vector, 5, nothing) == docs.search_text("badger", 5, nothing) == []
    assert docs.hybrid_search(records[0].vector, "badger", 5, nothing) == [] and docs.count(nothing) == 0


def test_words_are_found(docs):
    """Catches: a rare word that scores below a common one, case or plural that hides a word, scores upside down."""
    assert ids(docs.search_text("NUMBER77", 3)) == ["doc-77"]
    hits = docs.search_text("badger number100", 50)
    assert hits[0].id == "doc-100"
    assert "doc-15" in ids(docs.search_text("badger", 60))  # its text says badgers
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True) and min(scores) > 0


def test_chinese_words_are_found(docs):
    """Catches: an analyser that takes a Chinese sentence for one word."""
    hits = docs.search_text("关羽", ROWS)
    assert len(hits) == sum(1 for i in range(ROWS) if i % 3) and all("关羽" in hit.text for hit in hits)


@pytest.mark.parametrize("query", ["", "zebra", "?!", " \n"])
def test_words_that_are_nowhere(docs, records, query):
    """Catches: records without any shared word in a lexical answer; a crash on an empty query."""
    assert docs.search_text(query, 5) == []
    assert ids(docs.hybrid_search(records[9].vector, query, 3)) == ids(docs.search(records[9].vector, 3))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_hybrid_is_the_fusion_of_both_halves(docs, records, alpha):
    """Catches: alpha of the wrong half, scores fused instead of ranks, a filter that only one half got."""
    where = Not(Eq("language", "zh"))
    vector, text = records[4].vector, "number76 number100 number76"
    dense, words = docs.search(vector, 50, where), docs.search_text(text, 50, where)
    score = dict(rrf_fuse([ids(dense), ids(words)], [alpha, 1 - alpha]))
    hits = docs.hybrid_search(vector, text, 10, where, alpha)
    expected = sorted(score.values(), reverse=True)[:10]
    np.testing.assert_allclose([hit.score for hit in hits], expected, rtol=2e-2)  # ties of BM25 may swap ranks
    assert {hit.id for hit in words} == {"doc-76", "doc-100"}
    assert hits[0].id == dense[0].id if alpha == 1 else words[0].id in ids(hits)[:2]
    assert alpha == 0 or dense[0].id in ids(hits)[:4]
    assert all(hit.fields["language"] != "zh" for hit in hits)


def test_more_hits_than_there_are_records(docs, records):
    """Catches: padding with -1, an error, an HNSW search that stops at ef."""
    hits = docs.search(records[0].vector, 1000)
    assert len(hits) == len(set(ids(hits))) == ROWS


# --- writing ----------------------------------------------------------------------------------------------------


def test_what_was_written_is_read_at_once(scratch, note):
    """Catches: eventual consistency by default; several times, because it hides."""
    for n in range(4):
        vector = np.eye(4)[n % 4] + n / 100
        scratch.upsert([note(f"now-{n}", vector, f"fresh{n}", owner="now", n=n)])
        assert ids(scratch.search(vector, 1, Eq("owner", "now") & Eq("n", n))) == [f"now-{n}"]
        assert ids(scratch.search_text(f"fresh{n}", 1)) == [f"now-{n}"]
        assert scratch.count(Eq("owner", "now")) == n + 1


def test_upsert_replaces_all_of_a_record(scratch, note):
    """Catches: two rows of one id, an old vector, text or field that is still found."""
    where = Eq("owner", "swap")
    scratch.upsert([note("swap", [0, 1, 0, 0], "mackerel", "swap", 1), note("stay", [0, 1, 0, 0], "cod", "swap", 1)])
    scratch.upsert([note("swap", [0, 0, 0, 1], "salmon", "swap", 2)])
    assert scratch.count(where) == 2
    assert ids(scratch.search(np.array([0, 1, 0, 0]), 1, where)) == ["stay"]
    assert scratch.search_text("mackerel", 3) == [] and ids(scratch.search_text("salmon", 3)) == ["swap"]
    assert scratch.count(where & Eq("n", 1)) == 1
    assert scratch.get(["swap"])[0].fields["n"] == 2


def test_the_last_of_an_id_in_one_call_counts(scratch, note):
    """Catches: duplicates of one batch that a Milvus server keeps both."""
    twice = [note("twin", [1, 1, 0, 0], "first", "twin", 1), note("twin", [1, 0, 1, 0], "second", "twin", 2)]
    assert scratch.upsert(twice) == 1
    assert scratch.count(Eq("owner", "twin")) == 1
    assert scratch.get(["twin"])[0].text == "second"


def test_deleted_records_are_gone_at_once(scratch, note):
    """Catches: a count from statistics, tombstones that are still found, an error for an id that is not there."""
    scratch.upsert([note(f"gone-{n}", np.eye(4)[n % 4], f"herring{n}", "gone", n) for n in range(12)])
    scratch.delete(ids=["gone-1", "gone-2", "never-was"])
    assert scratch.count(Eq("owner", "gone")) == 10
    scratch.delete(where=Eq("owner", "gone") & Range("n", at_least=6))
    assert scratch.count(Eq("owner", "gone")) == 4
    found = ids(scratch.search(np.ones(4), 100, Eq("owner", "gone")))
    assert sorted(found) == ["gone-0", "gone-3", "gone-4", "gone-5"]
    assert scratch.search_text("herring7 herring2", 5) == [] and scratch.get(["gone-1", "gone-7"]) == []
    scratch.delete(where=Eq("owner", "gone") & In("n", []))
    assert scratch.count(Eq("owner", "gone")) == 4


def test_a_deleted_id_may_come_back(scratch, note):
    """Catches: a tombstone that swallows a later write."""
    scratch.upsert([note("phoenix", owner="phoenix")])
    scratch.delete(ids=["phoenix"])
    scratch.upsert([note("phoenix", [0, 1, 0, 0], owner="phoenix")])
    assert ids(scratch.search(np.array([0, 1, 0, 0]), 1, Eq("owner", "phoenix"))) == ["phoenix"]


def test_names_that_break_query_languages(scratch, note):
    """Catches: injection, and escapes that come back as they were sent."""
    hard = ['"', "'", "\\", 'a" or id != "', "'); DROP TABLE records; --", "新 行\n\t", "🦡", "x" * 500, "%s {} $meta"]
    scratch.upsert([note(name, owner=name[:900], text=name) for name in hard])
    assert ids(scratch.get(hard)) == hard
    for name in hard:
        assert ids(scratch.search(np.ones(4), 10, Eq("owner", name[:900]))) == [name]
    scratch.delete(ids=hard[:3])
    assert ids(scratch.get(hard)) == hard[3:]


def bad_records(note) -> dict[str, Record]:
    return {
        "dimensions": note("bad", [1, 0, 0]),
        "NaN": note("bad", [1, np.nan, 0, 0]),
        "infinity": note("bad", [1, np.inf, 0, 0]),
        "zeros": note("bad", [0, 0, 0, 0]),
        "other fields": Record("bad", np.ones(4), "", {"owner": "x"}),
        "int, not": Record("bad", np.ones(4), "", {"owner": "x", "n": True}),
        "str, not": Record("bad", np.ones(4), "", {"owner": 1, "n": 1}),
        "2^53": note("bad", n=2**60),
        "id is ''": note(""),
        "24,000": note("bad", text="x" * 30_000),
        "surrogate": note("bad", text="\ud800"),
        "NUL": note("bad", owner="a\0b"),
    }


@pytest.mark.parametrize("word", list(bad_records(lambda *_, **__: None)))
def test_a_bad_record_is_refused_and_nothing_of_its_call_is_written(scratch, note, word):
    """Catches: half a batch written; a NaN that is stored and later breaks the index (Milvus Lite takes it)."""
    with pytest.raises(LabError, match=word.replace("^", r"\^")):
        scratch.upsert([note("good", owner="bad"), bad_records(note)[word]])
    assert scratch.count(Eq("owner", "bad")) == 0


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda c: c.search(np.ones(3), 5), "3 dimensions"),
        (lambda c: c.search(np.array([1, np.nan, 0, 0]), 5), "NaN"),
        (lambda c: c.search(np.ones(4), 0), "k is 0"),
        (lambda c: c.search(np.ones(4), 1001), "k is 1001"),
        (lambda c: c.search(np.ones(4), 5, Eq("ownr", "x")), "unknown field 'ownr'"),
        (lambda c: c.search(np.ones(4), 5, Eq("n", "5")), "n is int, not str"),
        (lambda c: c.search(np.ones(4), 5, Range("owner", above=1)), "Range over owner"),
        (lambda c: c.hybrid_search(np.ones(4), "x", 5, alpha=1.5), "alpha is 1.5"),
        (lambda c: c.delete(), "delete what"),
        (lambda c: c.delete(where="n > 5"), "not a filter"),
        (lambda c: c.count(In("n", range(20_000))), "20,000 values"),
    ],
)
def test_a_bad_question_is_one_clear_error(scratch, call, word):
    """Catches: an assertion out of the index library, a search that silently answers something else."""
    with pytest.raises(LabError, match=word) as caught:
        call(scratch)
    assert caught.value.try_next


# --- collections --------------------------------------------------------------------------------------------------


def test_collections_are_made_opened_and_dropped(store):
    """Catches: a spec that is not kept, a name that can be taken twice, a dropped collection that is still there."""
    spec = CollectionSpec("shelf", 8, {"owner": str, "done": bool}, index="flat")
    store.create(spec).upsert([Record("a", np.ones(8), "text", {"owner": "x", "done": False})])
    assert "shelf" in store.collections() and store.open("shelf").spec == spec
    with pytest.raises(LabError, match="already has"):
        store.create(spec)
    store.drop("shelf")
    assert "shelf" not in store.collections()
    with pytest.raises(LabError, match="no collection 'shelf'"):
        store.open("shelf")
    store.drop("shelf")
    if store.name != "milvus":  # making a collection takes a server 3 s
        assert store.create(spec).count() == 0
        store.drop("shelf")


def test_everything_is_there_after_persist_and_a_new_start(store, scratch, note):
    """Catches: data that lived in memory; an index that forgot deletes or replacements."""
    scratch.upsert([note(f"keep-{n}", np.eye(4)[n % 4] + n / 50, f"trout{n}", "keep", n) for n in range(30)])
    scratch.delete(ids=["keep-0", "keep-1"])
    scratch.persist()
    scratch.upsert([note("keep-2", [1, 1, 1, 1], "changed", "keep", 2), note("keep-30", owner="keep", n=30)])
    assert scratch.count(Eq("owner", "keep")) == 29
    if store.name in ("faiss", "milvus-lite"):
        store.close()
        store.__init__(store.where)  # opens the folder again, in the object that the other tests hold
        again = store.open("scratch")
    else:
        again = second_client(store).open("scratch")
    assert again.count(Eq("owner", "keep")) == 29 and again.get(["keep-0"]) == []
    assert again.get(["keep-2"])[0].text == "changed"
    assert ids(again.search_text("trout7", 1)) == ["keep-7"]
    assert len(again.search(np.ones(4), 100, Eq("owner", "keep"))) == 29
