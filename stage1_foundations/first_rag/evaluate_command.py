"""`evaluate`: build, save, load, retrieve, calibrate, answer; every figure of the README comes from here."""

import json
from dataclasses import dataclass, replace

from rich.table import Table

import data
from labkit.cli import option
from labkit.files import write_json, write_text
from labkit.progress import console, error_console, progress
from labkit.runs import Run, start_run
from stage1_foundations.first_rag.commands import save_trace
from stage1_foundations.first_rag.corpus import passages_as_documents
from stage1_foundations.first_rag.embedding import LabEmbedding
from stage1_foundations.first_rag.evaluation import (
    Exam,
    area_under_curve,
    cited_text,
    cites_gold,
    holds,
    interval,
    make_exam,
    ranked_sources,
    reciprocal_rank,
    share,
    word_f1,
)
from stage1_foundations.first_rag.evaluation_plots import plot_evidence
from stage1_foundations.first_rag.evidence import calibrate, evidence
from stage1_foundations.first_rag.index_folder import build_index, load_index, save_index, split_documents
from stage1_foundations.first_rag.llm import endpoint_errors
from stage1_foundations.first_rag.rag import LLM_MODES, Answer, Rag, RagConfig, refusal, says_no_evidence

DEPTH = 10


@dataclass(frozen=True)
class EvaluateConfig:
    """How much to ask, and whom."""

    articles: int = option(12, "articles of SQuAD to index (of 48; about 43 passages each)")
    questions: int = option(200, "answerable questions; half of them calibrate the gate")
    unanswerable: int = option(100, "questions without an answer, near ones and as many far ones; half calibrate")
    llm_questions: int = option(6, "questions for the language model, as many unanswerable ones; 0: none")
    llm: str = option("smollm2", "which language model", ("smollm2", "endpoint"))
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
    "study": EvaluateConfig(articles=24, questions=1000, unanswerable=500, llm_questions=100),
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
            rows["answers"] += examine_llm(exam, rag, config, run)
        show_answers(rows["answers"])
        question = exam.labelled.queries[exam.answerable[0]]
        path = save_trace(rag, question, run.dir)
        run.artefact(path, kind="trace")
        write_json(run.dir / "evaluation.json", rows)
        run.artefact("evaluation.json", kind="results")
        run.next("python -m stage1_foundations.first_rag build")


def build_and_reload(exam: Exam, embedding: LabEmbedding, config: EvaluateConfig, run: Run) -> Rag:
    """Index the exam's corpus, persist it, load it again, and compare the answers before and after."""
    nodes = split_documents(
        passages_as_documents(exam.labelled.corpus, exam.corpus), embedding, config.chunk_tokens, overlap=0
    )
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
    run.metric("same_after_reload", same, "share", (1.0, 1.0), "answers equal after saving and loading the index")
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
    run.metric("mrr_vector", rows[0]["mrr"], "", None, "MRR@10 of VectorIndexRetriever")
    run.metric("mrr_fusion", rows[1]["mrr"], "", (0.7, None), "MRR@10 of the retriever by hand")
    run.metric("hit_rate_3", rows[1]["hit@3"], "share", (0.8, None), "gold passage among the three that answer")
    run.learnt(
        f"Dense retrieval alone has MRR@10 {rows[0]['mrr']:.2f}, fused with BM25 in 20 lines {rows[1]['mrr']:.2f}."
    )
    return rows


def halves(queries: list[str]) -> tuple[list[str], list[str]]:
    """The first half calibrates, the second half is examined."""
    return queries[: len(queries) // 2], queries[len(queries) // 2 :]


def examine_gate(exam: Exam, rag: Rag, run: Run) -> tuple[float, dict]:
    """Find the threshold on one half of the questions, and count right refusals on the other half."""
    strengths: dict[str, tuple[list[float], list[float]]] = {}
    for kind in ("answerable", "near", "far"):
        texts = [[exam.labelled.queries[query] for query in half] for half in halves(getattr(exam, kind))]
        strengths[kind] = tuple([evidence(text, rag.retrieve(text), rag.weights) for text in half] for half in texts)
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
    run.metric("refused_far", row["refused_far"], "share", (0.85, None), "no evidence said, article not in the index")
    run.metric("refused_near", row["refused_near"], "share", None, "no evidence said, only the passage missing")
    run.metric("threshold", threshold, "", None, "least evidence that counts")
    return threshold, row


def examine_answers(exam: Exam, rag: Rag, run: Run) -> dict:
    """Extractive answers to the answerable questions of the second half."""
    queries = halves(exam.answerable)[1]
    answers = [rag.ask(exam.labelled.queries[query]) for query in progress(queries, description="answer, extract")]
    row = judge(exam, queries, answers) | {"answers": "extract"}
    far = [rag.ask(exam.labelled.queries[query]).refused for query in halves(exam.far)[1]]
    row["invented_far"] = 1 - share(far)
    run.metric("citation_holds", row["citation_holds"], "share", (0.6, None), "the cited sentence holds the answer")
    run.metric("passage_holds", row["passage_holds"], "share", (0.7, None), "the cited passage holds the answer")
    run.learnt(
        f"Of the questions answered by quoting one sentence, {row['citation_holds']:.0%} have the answer in that "
        f"sentence and {row['passage_holds']:.0%} in its passage."
    )
    return row


def judge(exam: Exam, queries: list[str], answers: list[Answer]) -> dict:
    """Shares over the questions that were answered, and over all."""
    pairs = [(query, answer) for query, answer in zip(queries, answers, strict=True) if not answer.refused]
    gold = exam.labelled.answers
    holding = [holds(cited_text(answer), gold[query]) for query, answer in pairs]
    return {
        "questions": len(queries),
        "answered": share([not answer.refused for answer in answers]),
        "citation_holds": share(holding),
        "passage_holds": share([holds(answer.citations[0].text, gold[query]) for query, answer in pairs]),
        "gold_cited": share([cites_gold(answer.citations, exam.labelled.qrels[query]) for query, answer in pairs]),
        "text_holds": share([holds(answer.text, gold[query]) for query, answer in pairs]),
        "f1": sum(word_f1(answer.text, gold[query]) for query, answer in pairs) / max(1, len(pairs)),
        "right_of_all": sum(holds(answer.text, gold[query]) for query, answer in pairs) / max(1, len(queries)),
    }


def examine_llm(exam: Exam, rag: Rag, config: EvaluateConfig, run: Run) -> list[dict]:
    """The language model on the first of the same questions, with its guards and without.

    Without them is what LlamaIndex alone would show: no gate, and whatever the model writes; it was told to write
    "no evidence" where the text has no answer. Decoding is greedy, so one call a question serves both rows.
    """
    options = replace(rag.config, mode=config.mode, llm=config.llm, api_base=config.api_base, model=config.model)
    bare = Rag(rag.index, rag.embedding, replace(options, threshold=-1.0, tokens=32))
    answerable = halves(exam.answerable)[1][: config.llm_questions]
    nothing = halves(exam.far)[1][: config.llm_questions]
    raw, guarded = {}, {}
    for query in progress([*answerable, *nothing], description=f"answer, {config.llm}"):
        question = exam.labelled.queries[query]
        with endpoint_errors(bare.llm):
            response = bare.engine.query(question)
        enough = bare.gate.latest >= rag.config.threshold
        raw[query] = str(response)
        guarded[query] = bare.answer(question, response) if enough else refusal(question, bare.gate.latest)
    rows = [
        judge(exam, answerable, [rag.ask(exam.labelled.queries[query]) for query in answerable])
        | {"answers": "extract, these"},
        judge(exam, answerable, [guarded[query] for query in answerable])
        | {"answers": config.mode, "invented_far": share([not guarded[query].refused for query in nothing])},
        judge_texts(exam, answerable, raw)
        | {"answers": f"{config.mode}, bare", "invented_far": share([not says_no_evidence(raw[q]) for q in nothing])},
    ]
    keep_answers(exam, raw, guarded, run)
    run.metric("llm_invents", rows[2]["invented_far"], "share", None, "unanswerable questions the bare model answers")
    run.learnt(
        f"Told to say so, {config.llm} alone still answers {rows[2]['invented_far']:.0%} of {len(nothing)} questions "
        f"that the documents cannot answer; with gate and grounding {rows[1]['invented_far']:.0%}."
    )
    return rows


def judge_texts(exam: Exam, queries: list[str], texts: dict[str, str]) -> dict:
    """The same shares for answers without citations."""
    said = [query for query in queries if not says_no_evidence(texts[query])]
    gold = exam.labelled.answers
    right = [holds(texts[query], gold[query]) for query in said]
    return {
        "questions": len(queries),
        "answered": len(said) / max(1, len(queries)),
        "text_holds": share(right),
        "f1": sum(word_f1(texts[query], gold[query]) for query in said) / max(1, len(said)),
        "right_of_all": sum(right) / max(1, len(queries)),
    }


def keep_answers(exam: Exam, raw: dict[str, str], guarded: dict[str, Answer], run: Run) -> None:
    """What the model wrote and what was shown of it, one question a line, to read with one's own eyes."""
    lines = []
    for query, text in raw.items():
        gold = exam.labelled.answers[query] if query in exam.answerable else None
        row = {"question": exam.labelled.queries[query], "model": text, "shown": guarded[query].text, "gold": gold}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(run.dir / "llm_answers.jsonl", "".join(lines))
    run.artefact("llm_answers.jsonl", kind="answers")


def show_answers(rows: list[dict]) -> None:
    """The answers' table, and a word on what its columns mean."""
    table = Table(box=None, header_style="bold")
    columns = {
        "answers": "answers", "questions": "n", "answered": "answered", "text_holds": "right",
        "citation_holds": "citation", "passage_holds": "passage", "f1": "F1", "right_of_all": "of all",
        "invented_far": "invents",
    }  # fmt: skip
    for key, title in columns.items():
        table.add_column(title, justify="left" if key == "answers" else "right")
    for row in rows:
        values = [row.get(key) for key in columns]
        table.add_row(*(f"{v:.2f}" if isinstance(v, float) else "" if v is None else str(v) for v in values))
    console.print(table)
    error_console.print(
        "right, citation, passage: the answer, the cited sentence or the cited passage holds a gold answer, of the "
        "questions answered; of all: right, of all questions; invents: far questions that were answered",
        style="dim",
    )
