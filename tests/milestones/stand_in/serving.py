"""A hand-in's serving/__main__.py for the grader's tests: a small checkpoint behind the API of month 3.

behaviour.txt in the hand-in's folder makes it misbehave in one way.
"""

import argparse
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from labkit.checkpoint_hash import checkpoint_sha256, served_id

BEHAVIOUR = Path("behaviour.txt").read_text(encoding="utf-8")
BUSY = threading.Lock()


def gold_table() -> dict[str, str]:
    """What the public data says, word for word."""
    from data.customer_service.frames import load_voices

    table = {}
    for voice in load_voices(Path("frames")):
        for frame in voice.frames:
            text = "".join(piece.text for piece in frame.pieces)
            slots = {piece.slot: piece.code or piece.text for piece in frame.pieces if piece.slot}
            table[text] = json.dumps({"intent": frame.intent, "slots": slots})
    return table


class Engine:
    """Greedy answers, one at a time."""

    def __init__(self, folder: str, name: str) -> None:
        self.ids = [name, served_id(name, checkpoint_sha256(folder))]
        if BEHAVIOUR == "no hash":
            self.ids = [name]
        if BEHAVIOUR == "another model behind" and name == "tuned":
            folder = Path("hidden-model").read_text(encoding="utf-8")
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.table = gold_table() if BEHAVIOUR == "looks answers up" and name == "tuned" else {}

    @torch.inference_mode()
    def answer(self, prompt: str, max_tokens: int) -> str:
        for text, label in self.table.items():
            if f"\n{text}<|im_end|>" in prompt:
                return label
        ids = self.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        with BUSY:
            out = self.model.generate(**ids, max_new_tokens=max_tokens, do_sample=False)
        return self.tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def handler(engine: Engine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send({"data": [{"id": id} for id in engine.ids]})

        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if BEHAVIOUR == "hangs":
                time.sleep(600)
            if BEHAVIOUR == "one client" and BUSY.locked():
                return self.send_error(503)
            text = engine.answer(question["prompt"], question["max_tokens"])
            if not question.get("stream"):
                return self.send({"choices": [{"text": text}]} if BEHAVIOUR != "malformed" else {"text": text})
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            if BEHAVIOUR == "streams something else":
                text = text[:4] + " and more"
            pieces = [text] if BEHAVIOUR == "streams at once" else [text[:3], text[3:]]
            for piece in pieces:
                self.wfile.write(b"data: " + json.dumps({"choices": [{"text": piece}]}).encode() + b"\n\n")
            if BEHAVIOUR != "no end":
                self.wfile.write(b"data: [DONE]\n\n")

        def send(self, answer: dict) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    for name in ("--engine", "--model", "--served-name", "--adapter"):
        parser.add_argument(name)
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if BEHAVIOUR == "does not start":
        sys.exit("out of memory, or so it says")
    engine = Engine(options.model, options.served_name)
    ThreadingHTTPServer(("127.0.0.1", options.port), handler(engine)).serve_forever()


main()
