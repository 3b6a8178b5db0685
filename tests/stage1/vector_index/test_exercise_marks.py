"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage1_foundations.vector_index as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "vector_index.beam_insert": "test_hnsw.py::test_beam_insert_keeps_the_nearest_in_order",
    "vector_index.select_neighbours": "test_hnsw.py::test_select_neighbours_is_algorithm_4",
    "vector_index.group_by_list": "test_inverted_file.py::test_group_by_list_by_hand",
    "vector_index.update_centroids": "test_kmeans.py::test_update_centroids_by_hand",
    "vector_index.adc_tables": "test_product_quantizer.py::test_tables_sum_to_the_distance_of_the_decoded_vector",
    "vector_index.recall_at_k": "test_recall.py::test_by_hand",
}
PRELOAD = [
    "faiss", "hypothesis", "numba", "sklearn.cluster",
]  # fmt: skip


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"vector_index\.[a-z_]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
