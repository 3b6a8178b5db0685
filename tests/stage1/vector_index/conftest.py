"""Small sets of vectors with structure, FAISS on one thread, and the lab's command line."""

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from lab_cli import lab_cli
from threadpoolctl import threadpool_limits

from stage1_foundations.vector_index.problems import clustered

METRICS = {"inner_product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The threads of FAISS and BLAS only wait for each other on matrices as small as these."""
    faiss.omp_set_num_threads(1)
    with threadpool_limits(1):
        yield


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    """Where this test's runs go."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("COURSE_LAB_DEBUG", raising=False)
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def rows() -> np.ndarray:
    """4,100 clustered unit vectors of 24 dimensions, and no two alike."""
    return clustered(4100, 24, seed=3, clusters=40, degrees=8)


@pytest.fixture(scope="session")
def vectors(rows) -> np.ndarray:
    """4,000 to be searched."""
    return rows[100:]


@pytest.fixture(scope="session")
def queries(rows) -> np.ndarray:
    """100 held out."""
    return rows[:100]


@pytest.fixture(scope="session", params=list(METRICS))
def metric(request) -> str:
    """Both metrics."""
    return request.param


@pytest.fixture(scope="session")
def faiss_metric(metric) -> int:
    """FAISS's number for it."""
    return METRICS[metric]


@pytest.fixture
def cli(capsys) -> Callable[..., tuple[int, str, str]]:
    """`python -m stage1_foundations.vector_index` without the second process: (exit code, stdout, stderr)."""
    return lab_cli(capsys, "stage1_foundations.vector_index")
