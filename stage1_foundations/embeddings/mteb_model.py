"""Our encoders in mteb's own protocol: what `mteb.evaluate` calls, and the card that identifies a model's results.

mteb hands over a DataLoader of batches and says which role the texts have: `PromptType.query`, `PromptType.document`,
or None for symmetric tasks. Forgetting that argument is the usual way to evaluate E5 without its prompts.
"""

from typing import Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType

from stage1_foundations.embeddings.encoders import Encoder
from stage1_foundations.embeddings.model_registry import check_prompts, registered, training_data


def kind_of(prompt_type: PromptType | None) -> str:
    """The role of a text ("query", "passage" or "symmetric") from mteb's prompt type."""
    return {PromptType.query: "query", PromptType.document: "passage", None: "symmetric"}[prompt_type]


class MtebEncoder(AbsEncoder):
    """An `Encoder` behind mteb's EncoderProtocol; `similarity` is inherited (cosine).

    Raises:
        LabError: its prompts are not those of its weights.
    """

    def __init__(self, encoder: Encoder) -> None:
        check_prompts(encoder)
        self.encoder = self.model = encoder
        self.model_prompts = encoder.prompts
        self.mteb_model_meta = model_meta(encoder)

    def encode(self, inputs: Any, *, prompt_type: PromptType | None = None, **kwargs: Any) -> np.ndarray:
        """Vectors of a DataLoader's texts, float32 (N, D).

        Args:
            inputs: batches with the key "text".
            prompt_type: the role of the texts.
            kwargs: the task, its split and subset, the batch size; none changes a vector here.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        return self.encoder.encode(texts, kind_of(prompt_type))


def model_meta(encoder: Encoder) -> ModelMeta:
    """The model's card. Its name and revision are the key of mteb's result cache."""
    known = registered(encoder.origin)
    return ModelMeta(
        loader=None,
        name=f"course-lab/{encoder.name}",
        revision=encoder.revision[:16],
        release_date=None,
        languages=known.languages if known else None,
        n_parameters=known.n_parameters if known else None,
        memory_usage_mb=None,
        max_tokens=None,
        embed_dim=encoder.dimensions,
        license=None,
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=[],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=any(encoder.prompts.values()),
        training_datasets=training_data(encoder),
        adapted_from=encoder.origin or None,
    )
