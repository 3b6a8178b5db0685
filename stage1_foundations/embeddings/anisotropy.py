"""Are the vectors spread over the sphere, or huddled in a cone?

If the directions were used evenly, two texts that have nothing to do with each other would have a cosine of 0. In most
encoders it is far above (Ethayarajh 2019): the vectors share a direction that says nothing about the text. The ranking
survives a shared shift of all cosines; a fixed threshold ("similar above 0.8") does not survive a change of model.
"""

import numpy as np

from stage1_foundations.embeddings.encoders import unit_length


# exercise: embeddings.mean_cosine
def mean_cosine(vectors: np.ndarray) -> float:
    """The mean cosine of all pairs of different rows.

    Computed from the sum of the rows alone: |sum of u_i|^2 = N + sum over i != j of u_i . u_j for unit rows u.

    Args:
        vectors: (N, D), rows of length 1, N >= 2.
    """
    n = len(vectors)
    total = vectors.sum(axis=0, dtype=np.float64)
    return float((total @ total - n) / (n * (n - 1)))
# end exercise


def random_cosines(vectors: np.ndarray, pairs: int = 5000, seed: int = 1) -> np.ndarray:
    """Cosines of random pairs of different rows, (pairs,)."""
    rng = np.random.default_rng(seed)
    first = rng.integers(len(vectors), size=pairs)
    second = (first + rng.integers(1, len(vectors), size=pairs)) % len(vectors)
    return (vectors[first] * vectors[second]).sum(axis=1)


def effective_dimensions(vectors: np.ndarray) -> float:
    """How many directions carry the variance: (sum of the eigenvalues)^2 / sum of their squares, 1 to D."""
    centred = vectors - vectors.mean(axis=0)
    eigenvalues = np.linalg.svd(centred, compute_uv=False).astype(np.float64) ** 2
    return float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


def remove_mean(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Take the shared direction out, and set the lengths back to 1 (Mu and Viswanath 2018, their first step)."""
    return unit_length(vectors - mean)
