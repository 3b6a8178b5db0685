"""A small engine by hand: paged KV cache, prefix cache, continuous batching. The API is vLLM's:

    from stage2_rag_finetune_deploy.serving.mini_engine import LLM, SamplingParams  # or: from vllm import ...

    llm = LLM("path/to/checkpoint", max_model_len=1024)
    for output in llm.generate(["The sea is"], SamplingParams(temperature=0, max_tokens=32)):
        print(output.outputs[0].text)
"""

from typing import TYPE_CHECKING, Any

from stage2_rag_finetune_deploy.serving.mini_engine.sampling_params import SamplingParams

if TYPE_CHECKING:
    from stage2_rag_finetune_deploy.serving.mini_engine.llm import LLM

__all__ = ["LLM", "SamplingParams"]


def __getattr__(name: str) -> Any:
    """`LLM` on first use: torch takes seconds to import, and the scheduler alone does not need it."""
    if name == "LLM":
        from stage2_rag_finetune_deploy.serving.mini_engine.llm import LLM

        return LLM
    raise AttributeError(name)
