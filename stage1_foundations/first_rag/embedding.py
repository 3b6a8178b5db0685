"""The course's encoders behind LlamaIndex's embedding interface."""

from collections.abc import Callable
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.utils import get_tokenizer

from stage1_foundations.embeddings.encoders import Encoder, load_encoder


class LabEmbedding(BaseEmbedding):
    """Any encoder of the embeddings lab: prompts, unit length and the cache on disk come with it.

    LlamaIndex tells a query from a text, so models with prompts (E5) get the right one without further ado.

    Args:
        encoder: an encoder, or its name.
    """

    _encoder: Encoder = PrivateAttr()

    def __init__(self, encoder: Encoder | str = "minilm", **kwargs: Any) -> None:
        encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder
        # 10 texts a batch is the default; the encoder sorts by length and makes its own batches
        super().__init__(model_name=encoder.name, embed_batch_size=2048, **kwargs)
        self._encoder = encoder

    @property
    def encoder(self) -> Encoder:
        """The encoder behind the interface."""
        return self._encoder

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._encoder.encode([query], "query")[0].tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._encoder.encode(texts, "passage").tolist()

    @classmethod
    def class_name(cls) -> str:
        """Name in traces."""
        return "LabEmbedding"


def token_counter(encoder: Encoder) -> Callable[[str], list]:
    """Text to tokens, as the encoder counts them; so that a chunk fits into its window and nothing is cut off.

    Encoders without a tokenizer of their own (word vectors, random) get the one that LlamaIndex ships.
    """
    tokenizer_file = getattr(encoder, "folder", None) and encoder.folder / "tokenizer.json"
    if not tokenizer_file or not tokenizer_file.is_file():
        return get_tokenizer()
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids
