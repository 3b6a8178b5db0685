"""Month 2: the learner's RAG finds, answers and cites.

genuine         the newest run of `rag ingest` indexed this corpus, and its index is there
served          it starts, answers /health, and its passages are the corpus's, word for word
mrr_at_10       of questions drawn with a fresh seed, counted here from the ids that come back
answers         it answers in the form, and its citations quote the passages they name
fresh_corpus    MRR@10 on a corpus that the hand-in has never seen (fresh_corpus.py), ingested while grading
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import data
from labkit.errors import LabError
from milestones.fresh_corpus import FreshCorpus, fresh_corpus
from milestones.grade import FAILED, CheckResult, Context
from milestones.learner_model import LearnerFault
from milestones.learner_server import LearnerServer, run_ingest
from milestones.month1 import stopped
from milestones.submission import shown

DEPTH = 10
INGEST = "python -m stage2_rag_finetune_deploy.rag ingest"
INDEX = Path("stage2/rag/index")  # below runs/: where `ingest` writes unless it is told otherwise
Ranking = Sequence[tuple[str, str]]  # (id, text), the best first
LIMITS = ("threads", "start_limit", "answer_limit", "time_limit")


def grade(context: Context) -> list[CheckResult]:
    """See the module's docstring. Raises NotStarted when there is no run."""
    try:
        folder, report = context.newest_run()
        labelled = data.load_retrieval(context.month.settings["corpus"])
        index = recorded_index(context.runs, report, data.corpus_sha256(labelled.corpus))
    except LabError as error:
        return stopped(context, "genuine", error.message, advice=error.try_next or context.month.start)
    context.details |= {"run": shown(folder, context.submission), "seed": context.seed}
    results = [context.result("genuine", 1.0)]
    with tempfile.TemporaryDirectory(prefix="month2-") as scratch:
        try:
            for result in served_results(context, labelled, index, Path(scratch)):
                results.append(result)
        except LearnerFault as fault:
            reason = str(fault).replace(f"{context.submission}/", "")
            results += stopped(context, context.month.checks[len(results)].id, reason)
    return [replace(r, advice=context.month.improve) if r.status == FAILED else r for r in results]


def recorded_index(runs: Path, report: Mapping[str, Any], sha256: str) -> Path:
    """The index that `ingest` keeps up to date.

    Raises:
        LabError: the newest run read another corpus, or wrote somewhere else; or the index is not there.
    """
    if sha256 not in {entry["sha256"] for entry in report["data"]}:
        raise LabError("the newest `ingest` read another corpus", INGEST)
    index = runs / INDEX
    if report["config"].get("index") or not index.is_dir() or not any(index.iterdir()):
        raise LabError(f"there is no index at runs/{INDEX.as_posix()}", INGEST)
    return index.absolute()


def served_results(
    context: Context, labelled: data.RetrievalSet, index: Path, scratch: Path
) -> Iterator[CheckResult]:
    """Everything that needs the server, in the order of criteria.toml. Raises LearnerFault when it cannot be used."""
    settings = context.month.settings
    limits = {name: settings[name] for name in LIMITS}
    context.say("starting the server")
    with LearnerServer(context.submission, index, scratch, **limits) as server:
        queries = context.random("questions").sample(sorted(labelled.queries), settings["questions"])
        context.say("hidden questions")
        rankings = [server.retrieve(labelled.queries[query], DEPTH) for query in queries]
        yield verbatim_result(context, labelled.corpus, rankings)
        ids = [[id for id, _ in ranking] for ranking in rankings]
        mrr = mean(reciprocal_rank(found, labelled.qrels[query]) for found, query in zip(ids, queries, strict=True))
        seconds = sorted(server.seconds)
        p95 = seconds[int(0.95 * (len(seconds) - 1))]
        context.details |= {"mrr_at_10": round(mrr, 4), "retrieval_p95_ms": round(1000 * p95)}
        yield context.result("mrr_at_10", mrr, f"{len(queries)} questions, p95 {1000 * p95:.0f} ms")
        context.say("answers")
        yield answers_result(context, labelled, server, queries[: settings["answered"]])
    context.say("a corpus that it has not seen")
    yield fresh_result(context, labelled, scratch, limits)


def verbatim_result(context: Context, corpus: Mapping[str, str], rankings: Sequence[Ranking]) -> CheckResult:
    """Whether every hit names a passage of the corpus and shows its text, or a part of it."""
    hits = [hit for ranking in rankings for hit in ranking]
    strange = [id for id, text in hits if not stands_in(text, corpus.get(id, ""))]
    if not hits:
        return context.result("served", 0.0, "no question found a passage")
    message = f"{len(strange)} of {len(hits)} hits are no text of the corpus" if strange else ""
    return context.result("served", float(not strange), message)


def answers_result(
    context: Context, labelled: data.RetrievalSet, server: LearnerServer, queries: Sequence[str]
) -> CheckResult:
    """Share of the questions that are answered with a citation that quotes the passage it names."""
    good, found, held, refused = 0, [], [], 0
    for query in queries:
        answer = server.answer(labelled.queries[query])
        quotes = [stands_in(c["quote"], labelled.corpus.get(c["id"], "")) for c in answer["citations"]]
        good += not answer["refused"] and bool(quotes) and all(quotes)
        refused += answer["refused"]
        found += [c["id"] in labelled.qrels[query] for c in answer["citations"]]
        if not answer["refused"]:
            held.append(any(gold.lower() in answer["answer"].lower() for gold in labelled.answers[query]))
    context.details |= {
        "refused": round(refused / len(queries), 3), "citation_precision": round(mean(found), 3),
        "answers_hold_gold": round(mean(held), 3),
    }  # fmt: skip
    message = f"{refused} refused; {mean(found):.0%} of the citations name the gold passage"
    return context.result("answers", good / len(queries), message)


def fresh_result(
    context: Context, labelled: data.RetrievalSet, scratch: Path, limits: Mapping[str, Any]
) -> CheckResult:
    """MRR@10 on a corpus that was made for this grading. Raises LearnerFault."""
    settings = context.month.settings
    counts = settings["fresh_passages"], settings["fresh_questions"]
    fresh = fresh_corpus(labelled, context.random("fresh corpus"), *counts)
    docs, index = scratch / "passages.jsonl", scratch / "index"
    write_passages(docs, fresh)
    limit = settings["ingest_limit"]
    run_ingest(context.submission, docs, index, scratch, threads=settings["threads"], limit=limit)
    with LearnerServer(context.submission, index, scratch, **limits) as server:
        ranks = [
            reciprocal_rank([id for id, _ in server.retrieve(question, DEPTH)], {gold})
            for question, gold in fresh.questions
        ]
    message = f"{len(fresh.questions)} questions on {len(fresh.corpus)} passages with other names, numbers and ids"
    return context.result("fresh_corpus", mean(ranks), message)


def write_passages(path: Path, fresh: FreshCorpus) -> None:
    """One passage a line, as `ingest --docs` reads them."""
    lines = (json.dumps({"id": id, "text": text}, ensure_ascii=False) for id, text in fresh.corpus.items())
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def stands_in(part: str, text: str) -> bool:
    """Whether a part (not empty) stands in a text, word for word; white space is forgiven."""
    words = " ".join(part.split())
    return bool(words) and words in " ".join(text.split())


def reciprocal_rank(ranking: Sequence[str], gold: Iterable[str]) -> float:
    """1 / rank of the first gold passage among the first ten, else 0; the mean over questions is MRR@10."""
    wanted = set(gold)
    return next((1 / rank for rank, id in enumerate(ranking[:DEPTH], start=1) if id in wanted), 0.0)


def mean(values: Iterable[float]) -> float:
    """0 of nothing."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0
