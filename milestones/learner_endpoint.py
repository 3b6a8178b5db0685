"""The learner's deployed model as the grader sees it: one command, and the OpenAI-compatible API behind it.

    python -m stage2_rag_finetune_deploy.serving serve --engine ENGINE --model PATH --served-name NAME --port PORT
    GET  /health              200 once it answers
    GET  /v1/models           {"data": [{"id": NAME}, {"id": "NAME@sha256:<16 digits>"}, ...]}
    POST /v1/completions      {"model", "prompt", "max_tokens", "temperature": 0, "stop", "stream"}
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from milestones.learner_model import LearnerFault
from milestones.learner_process import LearnerProcess

MODULE = "stage2_rag_finetune_deploy.serving"
STOP = "<|im_end|>"


class LearnerEndpoint(LearnerProcess):
    """A model served by the hand-in's own command; the other arguments are those of LearnerProcess.

    Args:
        model: the checkpoint's folder; with `adapter`, the base's.
        name: what it is served as.

    Raises (every method):
        LearnerFault: it ends, does not answer in time, or answers something else than the form.
    """

    def __init__(
        self, folder: Path, model: Path, name: str, runs: Path, *, engine: str, adapter: Path | None = None,
        **limits: Any,
    ) -> None:  # fmt: skip
        self.name = name
        words = [MODULE, "serve", "--engine", engine, "--model", str(model)]
        if adapter:
            words += ["--served-name", "base", "--adapter", f"{name}={adapter}"]
        else:
            words += ["--served-name", name]
        super().__init__(folder, words, runs, **limits)

    def models(self) -> list[str]:
        """The names that it serves."""
        listed = self.ask("/v1/models").get("data")
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise LearnerFault("/v1/models gave no list of models")
        return [str(one.get("id")) for one in listed]

    def complete(self, prompt: str, max_tokens: int) -> str:
        """The greedy answer to a prompt."""
        return _text(self.ask("/v1/completions", self._question(prompt, max_tokens)))

    def stream(self, prompt: str, max_tokens: int) -> list[str]:
        """The pieces of the greedy answer, as they came."""
        pieces, ended = [], False
        for event in self.events("/v1/completions", self._question(prompt, max_tokens) | {"stream": True}):
            if event == "[DONE]":
                ended = True
                break
            try:
                pieces.append(_text(json.loads(event)))
            except ValueError:
                raise LearnerFault("/v1/completions streamed something else than JSON") from None
        if not ended:
            raise LearnerFault("/v1/completions streamed without [DONE] at the end")
        return pieces

    def complete_all(self, prompts: Sequence[str], max_tokens: int, clients: int) -> list[str]:
        """The greedy answers to many prompts, asked by `clients` at the same time."""
        with ThreadPoolExecutor(clients) as pool:
            return list(pool.map(lambda prompt: self.complete(prompt, max_tokens), prompts))

    def _question(self, prompt: str, max_tokens: int) -> dict[str, Any]:
        return {"model": self.name, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stop": [STOP]}


def _text(answer: Any) -> str:
    """The text of a completion, or of a piece of one."""
    try:
        text = answer["choices"][0]["text"] if answer["choices"] else ""
    except (KeyError, IndexError, TypeError):
        raise LearnerFault("/v1/completions did not answer in the form that milestones/README.md gives") from None
    if not isinstance(text, str):
        raise LearnerFault("/v1/completions gave a choice without text")
    return text
