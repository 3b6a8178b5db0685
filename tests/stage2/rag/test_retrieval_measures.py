"""Each test names the bug that it catches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabError
from stage2_rag_finetune_deploy.rag.evaluation.retrieval import (
    evaluate_run,
    ndcg,
    ranked_ids,
    read_trec_run,
    reciprocal_rank,
    write_trec_run,
)

NAMES = st.integers(0, 12).map("d{}".format)
RUNS = st.dictionaries(NAMES, st.sampled_from([0.5, 1.0, 2.0, 2.5, 3.0]), max_size=12)
ORDERS = st.lists(NAMES, unique=True, max_size=12).map(lambda names: {name: 20.0 - n for n, name in enumerate(names)})
GRADES = st.dictionaries(NAMES, st.integers(0, 3), min_size=1, max_size=8).filter(lambda grades: any(grades.values()))


def test_reciprocal_rank_by_hand():
    """Catches: ranks from 0, a cut-off that is one off, a judged but irrelevant passage that counts."""
    ranking = ["a", "b", "c", "d"]
    assert reciprocal_rank(ranking, {"c": 1}, 10) == pytest.approx(1 / 3)
    assert reciprocal_rank(ranking, {"c": 1}, 3) == pytest.approx(1 / 3)
    assert reciprocal_rank(ranking, {"c": 1}, 2) == 0
    assert reciprocal_rank(ranking, {"a": 0, "d": 2}, 10) == pytest.approx(1 / 4)


def test_ndcg_by_hand():
    """Catches: an ideal that is not cut at k, grades that are taken as 0 or 1."""
    relevant = {"a": 1, "b": 3, "x": 2}
    got = 1 / np.log2(2) + 3 / np.log2(3)
    assert ndcg(["a", "b"], relevant, 2) == pytest.approx(got / (3 / np.log2(2) + 2 / np.log2(3)))
    assert ndcg(["a"], {"a": 0}, 2) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ORDERS, GRADES), min_size=1, max_size=4))
def test_equals_ir_measures(rows):
    """Catches: any difference: missing queries, grades, cut-offs, denominators. Without ties: its engines differ."""
    measures = pytest.importorskip("ir_measures", reason="ir-measures is in the lock of stage 2")
    run = {f"q{number}": scores for number, (scores, _) in enumerate(rows)}
    qrels = {f"q{number}": grades for number, (_, grades) in enumerate(rows)}
    ours = evaluate_run(run, qrels, ["mrr@10", "ndcg@10", "recall@5", "hit@1"])
    pairs = {"mrr@10": measures.RR @ 10, "ndcg@10": measures.nDCG @ 10, "recall@5": measures.R @ 5,
             "hit@1": measures.Success @ 1}  # fmt: skip
    theirs = {(str(item.measure), item.query_id): item.value
              for item in measures.iter_calc(list(pairs.values()), qrels, run)}  # fmt: skip
    for name, measure in pairs.items():
        for value, query in zip(ours[name], qrels, strict=True):
            assert value == pytest.approx(theirs.get((str(measure), query), 0.0), abs=1e-6), (name, query)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(RUNS.filter(bool), GRADES), min_size=1, max_size=4))
def test_equals_trec_eval(rows):
    """Catches: the same against trec_eval's own code, and its rule for ties."""
    import pytrec_eval

    run = {f"q{number}": scores for number, (scores, _) in enumerate(rows)}
    qrels = {f"q{number}": grades for number, (_, grades) in enumerate(rows)}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank", "ndcg_cut.10", "recall.5", "success.1"}).evaluate(run)
    ours = evaluate_run(run, qrels, ["mrr@100", "ndcg@10", "recall@5", "hit@1"])
    names = {"mrr@100": "recip_rank", "ndcg@10": "ndcg_cut_10", "recall@5": "recall_5", "hit@1": "success_1"}
    for name, other in names.items():
        expected = [theirs[query][other] if query in theirs else 0.0 for query in qrels]
        np.testing.assert_allclose(ours[name], expected, atol=1e-6, err_msg=name)


def test_a_query_without_answer_counts_zero():
    """Catches: a mean over the answered queries only, which rewards silence (BEIR's own trap)."""
    values = evaluate_run({"q1": {"a": 1.0}}, {"q1": {"a": 1}, "q2": {"b": 1}}, ["mrr@10"])
    assert values["mrr@10"].tolist() == [1.0, 0.0]


def test_ties_go_to_the_larger_id():
    """Catches: ties in the order of a dict, which makes a figure depend on the corpus's order."""
    assert ranked_ids({"a": 1.0, "c": 1.0, "b": 2.0}) == ["b", "c", "a"]


@settings(max_examples=40, deadline=None)
@given(run=st.dictionaries(st.integers(0, 5).map("q{}".format), RUNS.filter(bool), min_size=1))
def test_run_files_are_read_back(run, tmp_path_factory):
    """Catches: scores that lose digits, ranks from 0, ids in the wrong column."""
    path = write_trec_run(tmp_path_factory.mktemp("run") / "a.trec", run, "test")
    assert read_trec_run(path) == run
    first = path.read_text().splitlines()[0].split()
    assert (first[1], first[3], first[5], len(first)) == ("Q0", "1", "test", 6)


@pytest.mark.parametrize("line", ["q1 Q0 p1 1 nan t", "q1 p1 1.0", "q1 Q0 p1 1 high t", "q Q0 p 1 1 t\nq Q0 p 2 0 t"])
def test_broken_run_files_are_refused(line, tmp_path):
    """Catches: a NaN that sorts anywhere, a passage twice whose later line wins in silence."""
    path = tmp_path / "broken.trec"
    path.write_text(line + "\n")
    with pytest.raises(LabError, match="line"):
        read_trec_run(path)


def test_ids_with_spaces_are_refused(tmp_path):
    """Catches: a run file of seven columns that every other tool misreads."""
    with pytest.raises(LabError):
        write_trec_run(tmp_path / "a.trec", {"q": {"two words": 1.0}}, "test")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["map@10", "mrr", "mrr@0", "mrr@ten"])
def test_unknown_measures_are_refused(name):
    """Catches: a typo that ends in a KeyError, or in a column of zeros."""
    with pytest.raises(LabError):
        evaluate_run({}, {"q": {"a": 1}}, [name])


def test_no_queries_are_refused():
    """Catches: the mean of nothing, NaN, in a table."""
    with pytest.raises(LabError):
        evaluate_run({}, {}, ["mrr@10"])
