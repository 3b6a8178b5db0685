"""`evaluate`: build, save, load, retrieve, calibrate, answer; every figure of the README comes from here."""

from dataclasses import dataclass, replace

from rich.table import Table

import data
from labkit.cli import option
from labkit.files import write_json
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from stage1_foundations.first_rag.answer_exam import examine_answers, examine_llm, show_answers
from stage1_foundations.first_rag.commands import save_trace
from stage1_foundations.first_rag.corpus import passages_as_documents, record_documents
from stage1_foundations.first_rag.embedding import LabEmbedding
from stage1_foundations.first_rag.evaluation import (
    Exam,
    area_under_curve,
    halves,
    interval,
    make_exam,
    ranked_sources,
    reciprocal_rank,
    record_metric,
    share,
)
from stage1_foundations.first_rag.evidence import calibrate, evidence
from stage1_foundations.first_rag.index_folder import build_index, load_index, save_index, split_documents
from stage1_foundations.first_rag.llm import LLMS
from stage1_foundations.first_rag.rag import LLM_MODES, Rag, RagConfig

DEPTH = 10


@dataclass(frozen=True)
class EvaluateConfig:
    """How much to ask, and whom."""

    articles: int = option(10, "articles of SQuAD to index (of 48; about 43 passages each)")
    questions: int = option(200, "answerable questions; half of them calibrate the gate")
    unanswerable: int = option(100, "questions without an answer, near ones and as many far ones; half calibrate")
    llm_questions: int = option(3, "questions for the language model, as many unanswerable ones; 0: none")
    llm: str = option("smollm2", "which language model", LLMS)
    mode: str = option("compact", "how the language model is asked", LLM_MODES)
    api_base: str | None = option(None, "address of an OpenAI-compatible endpoint, with /v1")
    model: str | None = option(None, "the endpoint's model")
    encoder: str = option("minilm", "encoder of the embeddings lab, a folder, or a hub id")
    chunk_tokens: int = option(200, "longest node in tokens")
    top_k: int = option(3, "nodes that answer")
    seed: int = option(1, "draws the articles and the questions")


PRESETS = {
    "smoke": EvaluateConfig(articles=1, questions=12, unanswerable=6, llm_questions=1, encoder="random"),
    "cpu": EvaluateConfig(),
    "study": EvaluateConfig(articles=24, questions=1000, unanswerable=500, llm_questions=50),
}
PRESETS["gpu"] = PRESETS["study"]


def run_evaluate(config: EvaluateConfig, preset: str) -> None:
    """The whole examination, as one run with a report."""
    exam = make_exam(
        data.load_retrieval("squad"), config.articles, config.questions, config.unanswerable, config.seed
    )
    with start_run("stage1", "first_rag", "evaluate", config, preset=preset, seed=config.seed) as run:
        embedding = LabEmbedding(config.encoder)
        rag = build_and_reload(exam, embedding, config, run)
        rows = {"retrieval": compare_retrievers(exam, rag, run)}
        threshold, rows["gate"] = examine_gate(exam, rag, run)
        rag = Rag(rag.index, embedding, replace(rag.config, threshold=threshold))
        rows["answers"] = [examine_answers(exam, rag, run)]
        if config.llm_questions:
            options = replace(
                rag.config, mode=config.mode, llm=config.llm, api_base=config.api_base, model=config.model, tokens=32
            )
            rows["answers"] += examine_llm(exam, rag, options, config.llm_questions, run)
        show_answers(rows["answers"])
        question = exam.labelled.queries[exam.answerable[0]]
        path = save_trace(rag, question, run.dir)
        run.artefact(path, kind="trace")
        write_json(run.dir / "evaluation.json", rows)
        run.artefact("evaluation.json", kind="results")
        run.next("python -m stage1_foundations.first_rag build")


def build_and_reload(exam: Exam, embedding: LabEmbedding, config: EvaluateConfig, run: Run) -> Rag:
    """Index the exam's corpus, persist it, load it again, and compare the answers before and after."""
    documents = passages_as_documents(exam.labelled.corpus, exam.corpus)
    record_documents(run, "squad", documents)
    nodes = split_documents(documents, embedding, config.chunk_tokens, overlap=0)
    index = build_index(nodes, embedding)
    folder = run.dir / "index"
    manifest = save_index(index, folder, embedding, config.chunk_tokens, 0, "squad")
    run.artefact(folder, kind="index")
    options = RagConfig(top_k=config.top_k, threshold=0.0)
    before, after = (
        Rag(made, embedding, replace(options, retriever="vector")) for made in (index, load_index(folder, embedding))
    )
    questions = [exam.labelled.queries[query] for query in exam.answerable[:20]]
    embedding.encoder.encode(exam_questions(exam), "query")  # once, in large batches; from here on they are cached
    same = share([before.ask(question) == after.ask(question) for question in questions])
    record_metric(run, "same_after_reload", same, "answers equal after saving and loading the index")
    console.print(
        f"{manifest.documents} passages, {manifest.nodes} nodes; the index, saved and loaded, gives the same answer to "
        f"{same:.0%} of {len(questions)} questions"
    )
    return Rag(after.index, embedding, options)


def exam_questions(exam: Exam) -> list[str]:
    """The texts of all questions."""
    return [exam.labelled.queries[query] for query in (*exam.answerable, *exam.near, *exam.far)]


def compare_retrievers(exam: Exam, rag: Rag, run: Run) -> list[dict]:
    """Hit rate and MRR@10 of LlamaIndex's own retriever and of the one by hand, on the same questions."""
    table = Table("retriever", "hit@1", "hit@3", "hit@10", "MRR@10", "95 % interval", box=None, header_style="bold")
    floor = random_order(len(exam.corpus))
    table.add_row("random order", *(f"{floor[key]:.3f}" for key in ("hit@1", "hit@3", "hit@10", "mrr")), "by formula")
    rows = []
    for name in ("vector", "fusion"):
        searcher = Rag(rag.index, rag.embedding, replace(rag.config, retriever=name, top_k=2 * DEPTH))
        ranks = []
        for query in progress(exam.answerable, description=f"retrieve, {name}"):
            found = ranked_sources(searcher.retrieve(exam.labelled.queries[query]))
            ranks.append(reciprocal_rank(found, exam.labelled.qrels[query], DEPTH))
        low, high = interval(ranks)
        row = {"retriever": name, "questions": len(ranks), "mrr": sum(ranks) / len(ranks), "low": low, "high": high}
        row |= {f"hit@{k}": share([rank >= 1 / k for rank in ranks]) for k in (1, 3, DEPTH)}
        rows.append(row)
        cells = [f"{row[key]:.3f}" for key in ("hit@1", "hit@3", "hit@10", "mrr")]
        table.add_row(name, *cells, f"{low:.3f} to {high:.3f}")
    console.print(table)
    record_metric(run, "mrr_vector", rows[0]["mrr"], "MRR@10 of VectorIndexRetriever")
    record_metric(run, "mrr_fusion", rows[1]["mrr"], "MRR@10 of the retriever by hand")
    record_metric(run, "hit_rate_3", rows[1]["hit@3"], "gold passage among the first three, fused")
    record_metric(run, "hit_rate_10", rows[1]["hit@10"], "gold passage among the first ten, fused")
    run.learnt(
        f"Dense retrieval alone has MRR@10 {rows[0]['mrr']:.2f}, fused with BM25 in 20 lines {rows[1]['mrr']:.2f}."
    )
    return rows


def random_order(passages: int) -> dict[str, float]:
    """What a retriever that knows nothing reaches on average, with one gold passage a question."""
    depth = min(DEPTH, passages)
    hits = {f"hit@{k}": min(k, passages) / passages for k in (1, 3, DEPTH)}
    return hits | {"mrr": sum(1 / rank for rank in range(1, depth + 1)) / passages}


def examine_gate(exam: Exam, rag: Rag, run: Run) -> tuple[float, dict]:
    """Find the threshold on one half of the questions, and count right refusals on the other half."""
    from stage1_foundations.first_rag.evaluation_plots import plot_evidence  # matplotlib takes a second to import

    strengths: dict[str, tuple[list[float], list[float]]] = {}
    for kind in ("answerable", "near", "far"):
        texts = [exam.labelled.queries[query] for query in getattr(exam, kind)]
        found = [
            evidence(text, rag.retrieve(text), rag.weights) for text in progress(texts, description=f"evidence, {kind}")
        ]
        strengths[kind] = halves(found)
    first = {kind: values[0] for kind, values in strengths.items()}
    last = {kind: values[1] for kind, values in strengths.items()}
    threshold = calibrate(first["answerable"], first["near"] + first["far"])
    row: dict = {"threshold": threshold}
    row["answered"] = share([value >= threshold for value in last["answerable"]])
    for kind in ("near", "far"):
        row[f"refused_{kind}"] = share([value < threshold for value in last[kind]])
        row[f"auc_{kind}"] = area_under_curve(last["answerable"], last[kind])
    plot_evidence(last, threshold, run.dir / "evidence.png")
    run.figure("evidence.png", "evidence of answerable and unanswerable questions, with the threshold")
    console.print(
        f"gate: threshold {threshold:.3f}, found on one half of the questions; of the other half it lets "
        f"{row['answered']:.0%} of the answerable through and refuses {row['refused_far']:.0%} of the far and "
        f"{row['refused_near']:.0%} of the near ones"
    )
    record_metric(run, "refused_far", row["refused_far"], "no evidence said, article not in the index")
    record_metric(run, "refused_near", row["refused_near"], "no evidence said, only the passage missing")
    record_metric(run, "answered", row["answered"], "answerable questions that the gate lets through")
    record_metric(run, "threshold", threshold, "least evidence that counts, found on the other half")
    return threshold, row
