"""From one vector a token to one vector a text. By hand; the library's layer is the oracle of the tests.

    mean    the average of the tokens: what MiniLM, E5 and most others were trained with
    cls     the first token: what BGE was trained with
    max     the largest value of each dimension

A model is only good with the pooling that it was trained with. And the padding is not part of the text: averaged in,
it makes a vector depend on the longest text that happened to be in the batch.
"""

import numpy as np
import torch
from torch import Tensor

POOLINGS = ("mean", "cls", "max", "mean with padding")


# exercise: embeddings.mean_pool
def mean_pool(states: Tensor, mask: Tensor) -> Tensor:
    """The mean of the tokens that are text.

    Args:
        states: (B, T, D) the transformer's last hidden states.
        mask: (B, T) 1 for text, 0 for padding.

    Returns:
        (B, D); a row without any text is zero.
    """
    weights = mask.unsqueeze(-1).to(states.dtype)  # (B, T, 1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
# end exercise


def pool(states: Tensor, mask: Tensor, kind: str) -> Tensor:
    """(B, T, D) -> (B, D) by one of POOLINGS; "mean with padding" is the bug."""
    if kind == "mean":
        return mean_pool(states, mask)
    if kind == "cls":
        return states[:, 0]
    if kind == "max":
        return states.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).amax(dim=1)
    if kind == "mean with padding":
        return states.mean(dim=1)
    raise ValueError(f"pooling is one of {', '.join(POOLINGS)}, not {kind!r}")


@torch.inference_mode()
def pooled(encoder, texts: list[str], kind: str) -> dict[str, np.ndarray]:
    """Raw vectors (N, D) of texts under every pooling, from one pass through the transformer.

    Args:
        encoder: a TransformerEncoder.
        kind: the texts' role, which chooses the prompt.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in POOLINGS}
    for start in range(0, len(texts), 32):  # in the order given: batches of mixed lengths, as a server would see
        batch = [encoder.prompts[kind] + text for text in texts[start : start + 32]]
        features = {name: value.to(encoder.device) for name, value in encoder.model.preprocess(batch).items()
                    if isinstance(value, Tensor)}  # fmt: skip
        states = encoder.model[0](features)["token_embeddings"]
        for name in POOLINGS:
            found[name].append(pool(states, features["attention_mask"], name).float().cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}
