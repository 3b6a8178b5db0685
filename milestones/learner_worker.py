"""Runs the learner's model and answers questions about it; started by learner_model.py.

    python -P learner_worker.py FD CHECKPOINT        in the hand-in folder, which is alone on PYTHONPATH

It imports nothing of the grader, so that the hand-in's own packages are the ones that load. It is told
neither the seed nor what the answers are for. Requests and answers are JSON, and arrays follow as raw bytes:
unpickling what a hand-in sends would run its code in the grader's process.
"""

import json
import os
import sys
from multiprocessing.connection import Connection

import numpy as np
import torch


class Worker:
    """The learner's model and tokenizer; one method a question."""

    def __init__(self, checkpoint: str) -> None:
        from stage1_foundations.gpt.checkpoint import load_model

        self.data = read(checkpoint).get("data", {})
        self.model, self.tokenizer = load_model(checkpoint, device="cpu")
        self.cached = hasattr(self.model, "new_cache")
        self.cache, self.past = None, None

    def hello(self, request: dict) -> dict:
        """What the grader needs to know before it asks."""
        parameters = self.model.parameters() if hasattr(self.model, "parameters") else ()
        return {
            "context": int(self.model.config.context),
            "vocab_size": int(self.model.config.vocab_size),
            "parameters": sum(p.numel() for p in parameters),
            "data": {key: str(self.data.get(key, "")) for key in ("name", "sha256")},
        }

    def known(self, request: dict) -> dict:
        """Which characters the tokenizer can write."""
        return {"known": [self._knows(character) for character in request["characters"]]}

    def _knows(self, character: str) -> bool:
        try:
            return self.tokenizer.decode(self.tokenizer.encode(character)) == character
        except Exception:
            return False

    def encode(self, request: dict) -> dict:
        """Token ids of texts."""
        return {"ids": [[int(i) for i in self.tokenizer.encode(text)] for text in request["texts"]]}

    def decode(self, request: dict) -> dict:
        """Texts of token ids."""
        return {"texts": [str(self.tokenizer.decode(ids)) for ids in request["ids"]]}

    def logits(self, request: dict) -> np.ndarray:
        """Logits at the last positions, from the plain forward pass: (B, T) -> (B, last, V)."""
        return self.model(ids_of(request))[:, -request["last"] :].float().numpy()

    def next(self, request: dict) -> np.ndarray:
        """Logits of the next token, (B, V); through the KV cache where the learner wrote one."""
        ids = ids_of(request)
        if self.cached and request["cache"]:
            try:
                return self._next_cached(ids)
            except Exception as error:  # a cache is not asked for: without it, only slower
                print(f"no KV cache: {type(error).__name__}: {error}", file=sys.stderr)
                self.cached = False
        return self.model(ids)[:, -1].float().numpy()

    def _next_cached(self, ids: torch.Tensor) -> np.ndarray:
        grown = self.past is not None and ids.shape[1] == self.past.shape[1] + 1
        if not grown or not torch.equal(ids[:, :-1], self.past):
            self.cache = self.model.new_cache(batch=ids.shape[0])
            fresh = ids
        else:
            fresh = ids[:, -1:]
        self.past = ids
        return self.model(fresh, self.cache)[:, -1].float().numpy()


def read(checkpoint: str) -> dict:
    """The checkpoint's content, without running code that may be in it."""
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        size = f"{os.path.getsize(checkpoint):,} bytes"
        raise ValueError(f"the checkpoint is truncated, or is not one ({size})") from error


def ids_of(request: dict) -> torch.Tensor:
    """The request's token ids, (B, T) int64."""
    return torch.from_numpy(np.frombuffer(request["bytes"], dtype=np.int64).reshape(request["shape"]).copy())


def one_line(error: BaseException) -> str:
    """An exception in one line; the lab's own errors speak for themselves."""
    text = " ".join(str(error).split())
    return text if type(error).__name__ == "LabError" else f"{type(error).__name__}: {text}"


@torch.inference_mode()
def serve(pipe: Connection, checkpoint: str) -> None:
    """Answer until the grader closes the pipe."""
    worker = None
    while True:
        try:
            request = json.loads(pipe.recv_bytes())
            if "shape" in request:
                request["bytes"] = pipe.recv_bytes()
        except EOFError:
            return
        try:
            worker = worker or Worker(checkpoint)
            answer = getattr(worker, request["question"])(request)
        except Exception as error:
            answer = {"error": one_line(error)}
        if isinstance(answer, np.ndarray):
            pipe.send_bytes(json.dumps({"shape": answer.shape, "cached": worker.cached}).encode())
            pipe.send_bytes(np.ascontiguousarray(answer, dtype=np.float32))
        else:
            pipe.send_bytes(json.dumps(answer).encode())


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), sys.argv[2])
