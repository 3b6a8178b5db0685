"""A response synthesizer by hand: the answer is the sentence that covers the question best, with its source.

`BaseSynthesizer` asks for `get_response(query_str, text_chunks)` and its async twin; `synthesize` around them turns
nodes into texts, makes the `Response` with its source nodes, and answers alone when there are no nodes.
"""

from collections.abc import Sequence
from typing import Any

from llama_index.core.llms import MockLLM
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.response_synthesizers import BaseSynthesizer

from stage1_foundations.first_rag.evidence import NO_EVIDENCE
from stage1_foundations.first_rag.words import WordWeights, best_sentence


class ExtractiveSynthesizer(BaseSynthesizer):
    """Quotes instead of writing: nothing can be invented, and the citation is exact.

    Args:
        weights: word weights of the corpus.
    """

    def __init__(self, weights: WordWeights) -> None:
        # the base class wants a model and would make OpenAI's without one, which asks for a key
        super().__init__(llm=MockLLM(), empty_response=NO_EVIDENCE)
        self._weights = weights

    def get_response(self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any) -> str:
        """The sentence, and the number of its text from 1 in brackets."""
        position, sentence = best_sentence(query_str, text_chunks, self._weights)
        return f"{sentence} [{position + 1}]" if sentence else NO_EVIDENCE

    async def aget_response(self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any) -> str:
        """The same: there is nothing to wait for."""
        return self.get_response(query_str, text_chunks, **response_kwargs)

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """No prompts, nothing to update."""
