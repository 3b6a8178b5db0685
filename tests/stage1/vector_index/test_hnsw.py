"""Each test names the bug that it catches."""

import threading

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage1_foundations.vector_index import HNSWIndex
from stage1_foundations.vector_index.hnsw import draw_levels
from stage1_foundations.vector_index.hnsw_graph import beam_insert, select_neighbours
from stage1_foundations.vector_index.kernels import aligned_rows
from stage1_foundations.vector_index.recall import ground_truth, recall_at_k


@pytest.fixture(scope="module")
def index(vectors, metric) -> HNSWIndex:
    """4,000 vectors, M = 12."""
    graph = HNSWIndex(24, metric, neighbours=12, ef_construction=80)
    graph.add(vectors)
    return graph


def test_recall_is_that_of_faiss(vectors, queries, metric, faiss_metric):
    """Catches: a worse graph or a worse walk. At the same M, efConstruction and ef: within .01 on the mean of three
    seeds, and at least .95 wherever FAISS has .95."""
    truth, differences = ground_truth(queries, vectors, metric), []
    theirs = faiss.IndexHNSWFlat(24, 8, faiss_metric)
    theirs.hnsw.efConstruction = 40
    theirs.add(vectors)
    for seed in (1, 2, 3):
        ours = HNSWIndex(24, metric, neighbours=8, ef_construction=40, seed=seed)
        ours.add(vectors)
        for ef in (10, 20, 40, 80):
            ours.ef_search = theirs.hnsw.efSearch = ef
            found = recall_at_k(ours.search(queries, 10)[1], truth)
            expected = recall_at_k(theirs.search(queries, 10)[1], truth)
            differences.append(found - expected)
            assert found >= 0.95 or expected < 0.96  # .01 for the draw of the levels
    assert abs(np.mean(differences)) <= 0.01
    assert expected >= 0.95  # else this test compares nothing


def test_scores_are_those_of_the_vectors(index, vectors, queries, metric):
    """Catches: scores of another metric, an order that is not by score, an id returned twice."""
    scores, ids = index.search(queries, 10)
    found = vectors[ids]
    exact = (found * queries[:, None]).sum(2) if metric == "inner_product" else ((found - queries[:, None]) ** 2).sum(2)
    np.testing.assert_allclose(scores, exact, atol=2e-6)
    falling = -np.diff(scores, axis=1) if metric == "inner_product" else np.diff(scores, axis=1)
    assert (falling >= 0).all()
    assert all(len(set(row)) == 10 for row in ids)


def test_links_are_sound(index):
    """Catches: a node linked to itself or twice to another, a link to a node that is not on the layer, gaps."""
    tables = [(np.arange(4000), index.base_links, 0)]
    for level in range(1, index.levels.max() + 1):
        nodes = np.flatnonzero(index.levels >= level)
        tables.append((nodes, index.upper_links[index.upper_rows[nodes] + level - 1], level))
    for nodes, links, level in tables:
        for node, row in zip(nodes, links, strict=True):
            used = row[row >= 0]
            assert (row[len(used) :] == -1).all()
            assert node not in used and len(set(used)) == len(used)
            assert (index.levels[used] >= level).all()
            assert len(used) or len(nodes) == 1
    assert index.levels[index.entry] == index.levels.max()


def test_every_node_can_be_reached(index):
    """Catches: neighbours chosen so narrowly that parts of the graph fall off."""
    seen, todo = {int(index.entry)}, [int(index.entry)]
    while todo:
        for neighbour in index.base_links[todo.pop()]:
            if neighbour >= 0 and int(neighbour) not in seen:
                seen.add(int(neighbour))
                todo.append(int(neighbour))
    assert len(seen) >= 0.995 * len(index)


def naive_selection(vectors, ids, distances, limit, squared):
    """Algorithm 4, word by word."""
    kept = []
    for node, to_base in zip(ids, distances, strict=True):
        between = [((vectors[node] - vectors[other]) ** 2).sum() if squared else -vectors[node] @ vectors[other]
                   for other in kept]  # fmt: skip
        if len(kept) < limit and all(to_base <= distance for distance in between):
            kept.append(node)
    return kept


@pytest.mark.parametrize("squared", [False, True])
def test_select_neighbours_is_algorithm_4(vectors, squared):
    """Catches: the nearest instead of the diverse ones; a comparison with the candidates that were refused."""
    padded = aligned_rows(vectors)
    for base in range(20):
        difference = vectors[100:160] - vectors[base]
        near = ((difference**2).sum(1) if squared else -(vectors[100:160] @ vectors[base])).astype(np.float32)
        order = np.argsort(near)
        ids, chosen = (100 + order).astype(np.int32), np.zeros(8, np.int32)
        count = select_neighbours(padded, squared, ids, near[order], 60, 8, chosen)
        expected = naive_selection(vectors.astype(np.float64), ids, near[order], 8, squared)
        assert chosen[:count].tolist() == expected and (chosen[count:] == -1).all()
        assert count < 8 or expected != ids[:8].tolist()  # it is not just the nearest


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.integers(1, 8))
def test_beam_insert_keeps_the_nearest_in_order(values, size):
    """Catches: an entry lost or doubled, ties out of order, a full beam that grows."""
    distances, ids, count = np.full(size, np.inf, np.float32), np.full(size, -1, np.int32), 0
    for node, value in enumerate(values):
        expected_place = sum(other <= value for other in distances[:count])
        place = beam_insert(distances, ids, count, np.float32(value), node)
        assert place == (expected_place if expected_place < size else -1)
        count = min(count + (place >= 0), size)
    expected = sorted(range(len(values)), key=lambda node: (values[node], node))[:size]
    assert ids[:count].tolist() == expected


def test_adding_in_pieces_is_adding_at_once(index, vectors, metric):
    """Catches: levels that depend on the pieces; an entry point forgotten between two calls."""
    pieces = HNSWIndex(24, metric, neighbours=12, ef_construction=80)
    for start in range(0, 4000, 1700):
        pieces.add(vectors[start : start + 1700])
    np.testing.assert_array_equal(pieces.base_links, index.base_links)
    np.testing.assert_array_equal(pieces.upper_links, index.upper_links)
    assert pieces.entry == index.entry


def test_wider_beam_costs_more_and_finds_more(index, vectors, queries, metric):
    """Catches: ef that is not handed on."""
    truth = ground_truth(queries, vectors, metric)
    recalls, costs = [], []
    for ef in (1, 16, 128):
        index.ef_search, index.distances_computed = ef, 0
        recalls.append(recall_at_k(index.search(queries, 1)[1], truth, 1))
        costs.append(index.distances_computed)
    assert recalls[0] < recalls[2] and recalls[2] >= 0.99
    assert costs[0] < costs[1] < costs[2] < 100 * 4000


def test_ef_below_k_still_gives_k(index, queries):
    """Catches: -1 in the answer although there are vectors enough."""
    index.ef_search = 2
    assert (index.search(queries, 30)[1] >= 0).all()


def test_one_and_two_vectors():
    """Catches: an index out of range in a graph without links."""
    index = HNSWIndex(3)
    index.add(np.eye(3, dtype=np.float32)[:1])
    assert index.search(np.eye(3)[0], 1)[1].tolist() == [[0]]
    index.add(np.eye(3, dtype=np.float32)[1:])
    assert index.search(np.eye(3), 1)[1].tolist() == [[0], [1], [2]]


def test_levels_fall_by_a_factor_of_m():
    """Catches: the wrong base of the logarithm: an upper layer as large as the lower one, or none."""
    levels = draw_levels(100_000, 16, seed=1)
    shares = [(levels >= level).mean() for level in (1, 2)]
    assert shares[0] == pytest.approx(1 / 16, rel=0.1) and shares[1] == pytest.approx(1 / 256, rel=0.3)


def test_threads_may_search_at_once(index, queries):
    """Catches: marks of visited nodes that two searches share."""
    index.ef_search = 64
    expected = index.search(queries, 10)[1]
    answers = [None] * 4

    def work(number: int) -> None:
        answers[number] = [index.search(queries, 10)[1] for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found, expected) for several in answers for found in several)
