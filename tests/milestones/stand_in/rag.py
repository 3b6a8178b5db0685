"""A hand-in's stage2_rag_finetune_deploy/rag/__main__.py for the grader's tests: BM25 behind the form of month 2.

behaviour.txt in the hand-in's folder makes it misbehave in one way.
"""

import json
import random
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import bm25s

BEHAVIOUR = Path("behaviour.txt").read_text(encoding="utf-8")


def ingest(docs: Path, index: Path) -> None:
    """Keep the passages; BM25 is built when the server starts."""
    if BEHAVIOUR == "ingest fails":
        sys.exit("no room on the moon")
    index.mkdir()
    (index / "passages.jsonl").write_text(docs.read_text(encoding="utf-8"), encoding="utf-8")


class Rag:
    """Passages, and a way to rank them."""

    def __init__(self, index: Path) -> None:
        rows = [json.loads(line) for line in (index / "passages.jsonl").read_text(encoding="utf-8").splitlines()]
        self.texts = {row["id"]: row["text"] for row in rows}
        self.ids = list(self.texts)
        self.bm25 = bm25s.BM25()
        self.bm25.index(bm25s.tokenize(list(self.texts.values()), show_progress=False), show_progress=False)
        self.known = self.answers_by_heart() if BEHAVIOUR == "looks answers up" else {}

    def answers_by_heart(self) -> dict[str, str]:
        """Question -> the text of its passage, from the public labels."""
        import data

        squad = data.load_retrieval("squad")
        return {text: squad.corpus[next(iter(squad.qrels[query]))] for query, text in squad.queries.items()}

    def rank(self, question: str, k: int) -> list[str]:
        """Ids, the best first."""
        if BEHAVIOUR == "random":
            return random.sample(self.ids, k)
        if BEHAVIOUR == "always the same":
            return self.ids[:k]
        if BEHAVIOUR == "looks answers up":
            gold = [id for id, text in self.texts.items() if text == self.known.get(question)]
            return (gold + random.sample(self.ids, k))[:k]
        words = bm25s.tokenize([question], show_progress=False)
        return [self.ids[place] for place in self.bm25.retrieve(words, k=k, show_progress=False)[0][0]]

    def hits(self, question: str, k: int) -> list[dict]:
        """What /retrieve gives."""
        hits = [{"id": id, "text": self.texts[id], "score": -rank} for rank, id in enumerate(self.rank(question, k))]
        if BEHAVIOUR == "own text":
            hits = [hit | {"text": "As everybody knows."} for hit in hits]
        return [{"id": 7}] if BEHAVIOUR == "malformed" else hits

    def answer(self, question: str) -> dict:
        """What /ask gives: the best passage's first words."""
        best = self.rank(question, 1)[0]
        quote = " ".join(self.texts[best].split()[:12])
        if BEHAVIOUR == "invents quotes":
            quote = "It is written somewhere, surely."
        if BEHAVIOUR == "refuses everything":
            return {"answer": "no evidence", "refused": True, "citations": []}
        return {"answer": quote, "refused": False, "citations": [{"id": best, "quote": quote}]}


def serve(index: Path, port: int) -> None:
    """Answer until killed."""
    if BEHAVIOUR == "does not start":
        sys.exit("cannot find my keys")
    rag = Rag(index)

    class Handler(BaseHTTPRequestHandler):
        def reply(self, content: dict) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:  # noqa: N802
            self.reply({"status": "ready", "mrr_at_10": 1.0})

        def do_POST(self) -> None:  # noqa: N802
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if BEHAVIOUR == "crashes":
                import os

                os._exit(3)
            if BEHAVIOUR == "hangs":
                import time

                time.sleep(60)
            if self.path == "/retrieve":
                self.reply({"hits": rag.hits(asked["question"], asked["k"])})
            else:
                self.reply(rag.answer(asked["question"]))

        def log_message(self, *args: object) -> None:
            pass

    HTTPServer(("127.0.0.1", port), Handler).serve_forever()


options = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
if sys.argv[1] == "ingest":
    ingest(Path(options["--docs"]), Path(options["--index"]))
else:
    serve(Path(options["--index"]), int(options["--port"]))
