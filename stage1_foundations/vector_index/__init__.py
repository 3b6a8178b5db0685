"""Vector indexes by hand: Flat, IVF, PQ, IVF-PQ and HNSW, beside FAISS, hnswlib and usearch."""

from stage1_foundations.vector_index.flat import FlatIndex
from stage1_foundations.vector_index.hnsw import HNSWIndex
from stage1_foundations.vector_index.index import VectorIndex, load_index, normalise
from stage1_foundations.vector_index.inverted_file import IVFIndex
from stage1_foundations.vector_index.ivf_pq import IVFPQIndex
from stage1_foundations.vector_index.product_quantizer import ProductQuantizer

__all__ = [
    "FlatIndex", "HNSWIndex", "IVFIndex", "IVFPQIndex", "ProductQuantizer", "VectorIndex", "load_index", "normalise",
]  # fmt: skip
