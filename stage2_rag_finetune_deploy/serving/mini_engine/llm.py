"""`LLM.generate`: many prompts at once, all answers at the end. The classes are those of vLLM, as far as they go."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.progress import progress
from stage2_rag_finetune_deploy.serving.mini_engine.engine import Engine, EngineConfig
from stage2_rag_finetune_deploy.serving.mini_engine.sampling_params import SamplingParams

Prompt = str | dict[str, list[int]]  # a text, or {"prompt_token_ids": [...]}


@dataclass
class CompletionOutput:
    """An answer."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None = None
    stop_reason: str | int | None = None


@dataclass
class RequestOutput:
    """A prompt and its answer."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = False
    num_cached_tokens: int = 0


class LLM:
    """A model for offline use.

    Args:
        model: a Hugging Face folder.
        options: fields of EngineConfig.
    """

    def __init__(self, model: str | Path, **options: Any) -> None:
        self.engine = Engine(model, EngineConfig(**options))
        self._number = 0

    def get_tokenizer(self) -> Any:
        """The tokenizer."""
        return self.engine.tokenizer

    def generate(
        self, prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None, use_tqdm: bool = False,
    ) -> list[RequestOutput]:  # fmt: skip
        """Answer all prompts; the outputs are in the prompts' order.

        Raises:
            LabError: a prompt is empty or does not fit; then none is computed.
        """
        prompts = [prompts] if isinstance(prompts, str | dict) else list(prompts)
        given = sampling_params or SamplingParams()
        params = [given] * len(prompts) if isinstance(given, SamplingParams) else list(given)
        outputs = {}
        try:
            for prompt, each in zip(prompts, params, strict=True):
                output = self._add(prompt, each)
                outputs[output.request_id] = output
            with progress(total=len(outputs), description="answers") if use_tqdm else nullcontext() as bar:
                self._run(outputs, bar)
        except BaseException:
            for request_id in outputs:
                self.engine.abort(request_id)
            raise
        return list(outputs.values())

    def _add(self, prompt: Prompt, params: SamplingParams) -> RequestOutput:
        text = prompt if isinstance(prompt, str) else None
        ids = self.engine.encode(prompt) if isinstance(prompt, str) else prompt["prompt_token_ids"]
        self._number += 1
        sequence = self.engine.add_request(str(self._number), ids, params)
        answer = CompletionOutput(0, "", sequence.output_ids)
        return RequestOutput(sequence.request_id, text, sequence.prompt_ids, [answer])

    def _run(self, outputs: dict[str, RequestOutput], bar: progress | None) -> None:
        """Step until all are done; token ids are filled in by the scheduler as they come."""
        while self.engine.unfinished:
            for step in self.engine.step():
                output = outputs[step.request_id]
                answer, output.num_cached_tokens = output.outputs[0], step.cached_tokens
                answer.text += step.text
                if step.finish_reason:
                    answer.finish_reason, answer.stop_reason = step.finish_reason, step.stop_reason
                    output.finished = True
                    if bar:
                        bar.advance()
