"""The language model behind LlamaIndex's LLM interface: SmolLM2 on this machine, or an OpenAI-compatible endpoint.

Every synthesizer talks to `LLM.complete` or `LLM.chat` and does not know which model answers.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.bridge.pydantic import Field
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.llm import LLM

from labkit.errors import LabError

SMOLLM2 = "smollm2-135m-instruct"
LLMS = ("smollm2", "endpoint")


class SmolLM(CustomLLM):
    """A causal language model from a folder, decoded greedily by transformers.

    A subclass of `CustomLLM` needs three things: `metadata`, `complete` and `stream_complete`. A model that was tuned
    on chats needs a fourth: synthesizers call `complete(..., formatted=True)`, so a chat template applied only inside
    `complete` would be skipped in silence. `completion_to_prompt` is where LlamaIndex asks for it.

    Args:
        folder: a Hugging Face folder with a chat template.
        context_window: tokens of prompt and answer together (SmolLM2 was trained on 2,048).
        num_output: longest answer in tokens; LlamaIndex keeps that much of the window free.
    """

    folder: Path = Field(description="Hugging Face folder")
    context_window: int = 2048
    num_output: int = 64

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.completion_to_prompt = self._as_user_message
        self.messages_to_prompt = self._as_chat

    @property
    def metadata(self) -> LLMMetadata:
        """What the prompt helper needs to know; not a chat model, so prompts arrive as one text."""
        return LLMMetadata(
            context_window=self.context_window, num_output=self.num_output, model_name=self.folder.parent.name
        )

    @cached_property
    def tokenizer(self) -> Any:
        """The model's own tokenizer; also what prompts are measured with."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder)

    @cached_property
    def model(self) -> Any:
        """The weights, loaded at the first answer; in bfloat16 where the processor computes in it, else float32."""
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        from labkit.device import choose_dtype  # and with it torch, which most commands do without

        logging.disable_progress_bar()
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=choose_dtype("auto", "cpu")).eval()
        model.generation_config.pad_token_id = model.generation_config.eos_token_id
        return model

    def count_tokens(self, text: str) -> list[int]:
        """Token ids of a text, for LlamaIndex's `Settings.tokenizer`."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _as_user_message(self, prompt: str) -> str:
        """A prompt as one user message in the model's chat template."""
        return self._as_chat([ChatMessage(role="user", content=prompt)])

    def _as_chat(self, messages: Sequence[ChatMessage]) -> str:
        """Messages in the model's chat template, up to where the answer begins."""
        plain = [{"role": message.role.value, "content": message.content or ""} for message in messages]
        return self.tokenizer.apply_chat_template(plain, add_generation_prompt=True, tokenize=False)

    def _inputs(self, prompt: str, formatted: bool) -> dict[str, Any]:
        """The prompt as ids, in the chat template unless it is formatted already."""
        prompt = prompt if formatted else self._as_user_message(prompt)
        inputs = dict(self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False))
        room = self.context_window - self.num_output
        if inputs["input_ids"].shape[1] > room:
            message = f"the prompt has {inputs['input_ids'].shape[1]} tokens, the model has room for {room}"
            raise LabError(message, "a shorter question, or a smaller --top-k")
        return inputs

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to a prompt, greedy: the same prompt gives the same answer."""
        import torch

        inputs = self._inputs(prompt, formatted)
        with torch.inference_mode():
            ids = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.num_output)
        new = ids[0, inputs["input_ids"].shape[1] :]
        text = self.tokenizer.decode(new, skip_special_tokens=True).strip()
        return CompletionResponse(text=text, additional_kwargs={"tokens": len(new)})

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The same answer, piece by piece, while it is written."""
        from transformers import TextIteratorStreamer

        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        options = self._inputs(prompt, formatted) | {"do_sample": False, "max_new_tokens": self.num_output}
        writer = Thread(target=self.model.generate, kwargs=options | {"streamer": streamer}, daemon=True)

        def pieces() -> CompletionResponseGen:
            writer.start()
            text = ""
            for piece in streamer:
                text += piece
                yield CompletionResponse(text=text, delta=piece)
            writer.join()

        return pieces()

    @classmethod
    def class_name(cls) -> str:
        """Name in traces."""
        return "SmolLM"


def load_llm(name: str, api_base: str | None = None, model: str | None = None, tokens: int = 64) -> LLM:
    """The LLM by its short name.

    Args:
        name: `smollm2`, or `endpoint` for any server that speaks OpenAI's protocol (vLLM, Ollama, llama.cpp, ...).
        api_base: the endpoint's address up to `/v1`; by default OPENAI_BASE_URL. The key is OPENAI_API_KEY.
        model: the endpoint's model.
        tokens: longest answer.

    Raises:
        LabError: an endpoint without an address or a model.
    """
    if name == "smollm2":
        import data

        return SmolLM(folder=data.fetch(SMOLLM2), num_output=tokens)
    api_base = api_base or os.environ.get("OPENAI_BASE_URL")
    if not api_base:
        raise LabError("--llm endpoint without an address", "--api-base http://localhost:8000/v1, or --llm smollm2")
    if not api_base.startswith(("http://", "https://")):
        raise LabError(f"--api-base {api_base} is not a web address", "--api-base http://localhost:8000/v1")
    if not model:
        raise LabError("--llm endpoint without a model", "--model NAME, one that the endpoint serves")
    from stage1_foundations.first_rag.endpoint import Endpoint

    key = os.environ.get("OPENAI_API_KEY") or "none"
    return Endpoint(model=model, api_base=api_base, api_key=key, context_window=2048, max_tokens=tokens)


def errors_of(llm: LLM | None) -> AbstractContextManager[None]:
    """Inside the block, what an endpoint may do wrong is one line (`endpoint_errors`); other models are left alone."""
    api_base = getattr(llm, "api_base", None)
    if not api_base:
        return nullcontext()
    from stage1_foundations.first_rag.endpoint import endpoint_errors  # openai's client takes a second to import

    return endpoint_errors(api_base)
