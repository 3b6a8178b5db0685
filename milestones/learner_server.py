"""The learner's RAG as the grader sees it: a command that ingests, and a server that answers over HTTP.

    python -m stage2_rag_finetune_deploy.rag ingest --docs passages.jsonl --index FOLDER
    python -m stage2_rag_finetune_deploy.rag serve --index FOLDER --port PORT
    GET  /health     200 once questions are answered
    POST /retrieve   {"question", "k"} -> {"hits": [{"id", "text", "score"}]}, the best first
    POST /ask        {"question"} -> {"answer", "refused", "citations": [{"id", "quote"}]}

The grader counts; of the learner's code it takes rankings and answers, no verdicts.
"""

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from milestones.learner_model import LearnerFault
from milestones.learner_process import LearnerProcess, end, last_line, start

MODULE = "stage2_rag_finetune_deploy.rag"


def run_ingest(folder: Path, docs: Path, index: Path, runs: Path, *, threads: int, limit: float) -> None:
    """Let the hand-in index a file of passages.

    Raises:
        LearnerFault: it fails, or takes longer than `limit` seconds.
    """
    words = [MODULE, "ingest", "--docs", str(docs), "--index", str(index)]
    with tempfile.TemporaryFile() as log:
        process = start(folder, words, log, runs, threads)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise LearnerFault(f"ingest took longer than {limit:.0f} s") from None
        finally:
            end(process)
        if code:
            raise LearnerFault(f"ingest ended with exit code {code}{last_line(log)}")


class LearnerServer(LearnerProcess):
    """The hand-in's RAG, serving the index at `index`; the other arguments are those of LearnerProcess.

    Raises (every method):
        LearnerFault: it ends, does not answer in time, or answers something else than the form.
    """

    def __init__(self, folder: Path, index: Path, runs: Path, **limits: Any) -> None:
        self.seconds: list[float] = []  # of every retrieval
        super().__init__(folder, [MODULE, "serve", "--index", str(index)], runs, **limits)

    def retrieve(self, question: str, k: int) -> list[tuple[str, str]]:
        """(id, text) of the passages found, the best first; at most k, each id once."""
        started = time.perf_counter()
        hits = self.ask("/retrieve", {"question": question, "k": k}).get("hits")
        self.seconds.append(time.perf_counter() - started)
        if not isinstance(hits, list) or not all(isinstance(hit, dict) for hit in hits):
            raise LearnerFault("/retrieve gave no list of hits")
        found = [(hit.get("id"), hit.get("text")) for hit in hits[:k]]
        if not all(isinstance(id, str) and isinstance(text, str) for id, text in found):
            raise LearnerFault("a hit of /retrieve lacks its id or its text")
        return list({id: (id, text) for id, text in reversed(found)}.values())[::-1]

    def answer(self, question: str) -> dict[str, Any]:
        """{"answer": str, "refused": bool, "citations": [{"id": str, "quote": str}]}, the form checked."""
        answer = self.ask("/ask", {"question": question})
        citations = answer.get("citations")
        well_formed = (
            isinstance(answer.get("answer"), str)
            and isinstance(answer.get("refused"), bool)
            and isinstance(citations, list)
            and all(isinstance(c, dict) and isinstance(c.get("id"), str) for c in citations)
            and all(isinstance(c.get("quote"), str) for c in citations)
        )
        if not well_formed:
            raise LearnerFault("/ask did not answer in the form that milestones/README.md gives")
        return answer
