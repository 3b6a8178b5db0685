"""Libraries behind one interface; a further library is one more small module here and one line in LIBRARIES.

    adapter = make_adapter("faiss", "hnsw", Settings(dimensions=50))
    adapter.fit(vectors)
    adapter.set_query_arguments(64)      # ef; for IVF nprobe
    ids = adapter.query(vector, k=10)

The shape fit / set_query_arguments / query is that of ann-benchmarks (Aumueller, Bernhardsson, Faithfull 2020).
"""

from importlib import import_module

from labkit.cli import nearest
from labkit.errors import LabError
from stage1_foundations.vector_index.adapters.adapter import FAMILIES, Adapter, Settings

LIBRARIES = {
    "ours": "stage1_foundations.vector_index.adapters.ours:Ours",
    "faiss": "stage1_foundations.vector_index.adapters.faiss_library:Faiss",
    "hnswlib": "stage1_foundations.vector_index.adapters.hnswlib_library:Hnswlib",
    "usearch": "stage1_foundations.vector_index.adapters.usearch_library:Usearch",
}
OPTIONAL = {"hnswlib": "pip install hnswlib, which wants a C++ compiler"}

__all__ = ["FAMILIES", "LIBRARIES", "Adapter", "Settings", "library_class", "make_adapter", "why_missing"]


def library_class(library: str) -> type[Adapter]:
    """The adapter's class.

    Raises:
        LabError: an unknown library.
        ImportError: a known one that is not installed.
    """
    if library not in LIBRARIES:
        best = nearest(library, list(LIBRARIES))
        raise LabError(f"no library is called {library}", best or f"one of: {', '.join(LIBRARIES)}")
    module, name = LIBRARIES[library].split(":")
    return getattr(import_module(module), name)


def why_missing(library: str) -> str | None:
    """Why a library cannot be used here, or None if it can."""
    try:
        library_class(library)
    except ImportError as error:
        return f"{library} is left out ({error}): {OPTIONAL.get(library, 'make setup')}"
    return None


def make_adapter(library: str, family: str, settings: Settings) -> Adapter:
    """An index of a library that is ready to be fitted."""
    return library_class(library)(family, settings)
