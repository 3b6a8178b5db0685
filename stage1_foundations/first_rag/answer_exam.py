"""The second half of `evaluate`: are the answers right, does what they cite hold them, and what is invented?"""

import json
from dataclasses import replace

from rich.table import Table

from labkit.files import write_text
from labkit.progress import console, progress
from labkit.runs import Run
from stage1_foundations.first_rag.evaluation import (
    Exam,
    cited_text,
    cites_gold,
    halves,
    holds,
    record_metric,
    share,
    word_f1,
)
from stage1_foundations.first_rag.rag import Answer, Rag, RagConfig, refusal, says_no_evidence


def examine_answers(exam: Exam, rag: Rag, run: Run) -> dict:
    """Extractive answers to the answerable questions of the second half."""
    queries = halves(exam.answerable)[1]
    answers = [rag.ask(exam.labelled.queries[query]) for query in progress(queries, description="answer, extract")]
    row = judge(exam, queries, answers) | {"answers": "extract"}
    far = [rag.ask(exam.labelled.queries[query]).refused for query in halves(exam.far)[1]]
    row["invented_far"] = 1 - share(far)
    record_metric(run, "citation_holds", row["citation_holds"], "the cited sentence holds the answer")
    record_metric(run, "passage_holds", row["passage_holds"], "the cited passage holds the answer")
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


def examine_llm(exam: Exam, rag: Rag, config: RagConfig, count: int, run: Run) -> list[dict]:
    """The language model on the first of the same questions, with its guards and without.

    Without them is what LlamaIndex alone would show: no gate, and whatever the model writes; it was told to write
    "no evidence" where the text has no answer. Decoding is greedy, so one call a question serves both rows.

    Args:
        rag: with the calibrated threshold.
        config: names the model and the mode.
        count: answerable questions, and as many far ones.
    """
    bare = Rag(rag.index, rag.embedding, replace(config, threshold=0.0))
    answerable, nothing = halves(exam.answerable)[1][:count], halves(exam.far)[1][:count]
    raw, guarded = {}, {}
    for query in progress([*answerable, *nothing], description=f"answer, {config.llm}"):
        question = exam.labelled.queries[query]
        response = bare.engine.query(question)
        enough = bare.gate.latest >= rag.gate.threshold
        raw[query] = str(response)
        guarded[query] = bare.answer(question, response) if enough else refusal(question, bare.gate.latest)
    rows = [
        judge(exam, answerable, [rag.ask(exam.labelled.queries[query]) for query in answerable])
        | {"answers": "extract, same questions"},
        judge(exam, answerable, [guarded[query] for query in answerable])
        | {"answers": config.mode, "invented_far": share([not guarded[query].refused for query in nothing])},
        judge_texts(exam, answerable, raw)
        | {"answers": f"{config.mode}, bare", "invented_far": share([not says_no_evidence(raw[q]) for q in nothing])},
    ]
    keep_answers(exam, raw, guarded, run)
    record_metric(run, "llm_invents", rows[2]["invented_far"], "unanswerable questions that the bare model answers")
    record_metric(run, "llm_invents_guarded", rows[1]["invented_far"], "the same, with gate and grounding")
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
    console.print(
        "right, citation, passage: share of the questions answered where the answer, the cited sentence, the cited "
        "passage holds a gold answer; of all: right ones, of all n; invents: far questions that were answered",
        style="dim",
    )
