"""`evaluate`: every chunker on every exam; the tables and figures of the README come from here."""

from dataclasses import dataclass

from rich.table import Table

from labkit.cli import nearest, option
from labkit.errors import LabError
from labkit.files import write_json, write_text
from labkit.progress import console, error_console
from labkit.runs import Run, start_run
from labkit.timing import Timer, human_seconds
from stage1_foundations.embeddings.encoders import load_encoder
from stage2_rag_finetune_deploy.chunking.dispatch import make_chunker
from stage2_rag_finetune_deploy.chunking.exam import EXAMS, Exam, load_exam
from stage2_rag_finetune_deploy.chunking.measure import EncodingCost, run_row
from stage2_rag_finetune_deploy.chunking.plots import plot_borders, plot_scores
from stage2_rag_finetune_deploy.chunking.rows import rows_of
from stage2_rag_finetune_deploy.chunking.segmentation import topic_errors
from stage2_rag_finetune_deploy.chunking.sizes import load_counter
from stage2_rag_finetune_deploy.chunking.spans import check_sizes
from stage2_rag_finetune_deploy.chunking.summary import Difference, Line, sentence_about, summarise

LEGEND = (
    "chunks: what is searched; size: tokens that a reader gets for a hit, median; cut: answers that no chunk holds "
    "whole; R@5: share of the answers in the first five; R@1k: in the first 1,000 tokens (or --budget); s: seconds "
    "to cut and embed. Green: the right chunker; against it, in a paired test corrected for the number of rows: "
    "- worse, + better, = no difference shown"
)


@dataclass(frozen=True)
class EvaluateConfig:
    """Which exams, how much of them, and which chunkers."""

    exams: str = option("technical,article,meeting-en,meeting-zh", "exams, separated by commas")
    chunkers: str = option("all", "rows beside the right one: all, main, or chunkers or rows by name, with commas")
    documents: int | None = option(None, "technical documents; none is all")
    meetings: int | None = option(None, "meetings in each language; none is all")
    articles: int | None = option(None, "articles of SQuAD; none is all 48")
    questions: int | None = option(None, "questions about the articles; none is all")
    cap: int = option(200, "largest chunk in tokens of the encoder; MiniLM reads 254")
    overlap: int = option(25, "tokens that neighbours share, where the row says overlap")
    budget: int = option(1000, "tokens that the prompt has room for")
    encoder: str | None = option(None, "one encoder for all exams; none: minilm, for Chinese e5")
    seed: int = option(1, "draws articles and questions")


PRESETS = {
    "smoke": EvaluateConfig(
        exams="technical,meeting-en", chunkers="sentence,parent-child,characters", documents=2, encoder="random"
    ),
    "cpu": EvaluateConfig(chunkers="main", documents=3, meetings=2, articles=1, questions=60),
    "study": EvaluateConfig(articles=16, questions=1500),
    "gpu": EvaluateConfig(),
}


def run_evaluate(config: EvaluateConfig, preset: str) -> None:
    """All exams, as one run with a report."""
    names = exam_names(config)
    check_sizes(config.cap, config.overlap)
    with start_run("stage2", "chunking", "evaluate", config, preset=preset, seed=config.seed) as run:
        tables: dict[str, list[Line]] = {}
        for name in names:
            exam = choose_exam(name, config)
            tables[name] = examine(exam, config)
            show(exam, tables[name])
            record(run, name, tables[name])
            if name.startswith("meeting"):
                judge_topics(exam, config, run)
            if len(tables) == 1:
                draw_borders(exam, config, run)
        console.print(LEGEND, style="dim")
        plain = {name: [line.as_json() for line in lines] for name, lines in tables.items()}
        write_json(run.dir / "tables.json", plain)
        write_text(run.dir / "tables.md", "\n".join(markdown(name, lines) for name, lines in tables.items()))
        run.artefact("tables.json", kind="results")
        run.artefact("tables.md", kind="table")
        run.figure(plot_scores(tables, run.dir / "scores.png"), "MRR@10 of every chunker, with 95 % intervals")
        run.next("python -m stage2_rag_finetune_deploy.chunking show README.md")


def exam_names(config: EvaluateConfig) -> list[str]:
    """The exams asked for, checked; and the sizes.

    Raises:
        LabError: an unknown exam or chunker, or a count that is not positive.
    """
    names = [word.strip() for word in config.exams.split(",") if word.strip()]
    for name in names:
        if name not in EXAMS:
            raise LabError(f"no exam is called {name!r}", f"--exams {nearest(name, list(EXAMS)) or ','.join(EXAMS)}")
        rows_of(name, config.chunkers)
    if not names:
        raise LabError("no exam to sit", f"--exams {','.join(EXAMS)}")
    for count in ("documents", "meetings", "articles", "questions", "budget"):
        value = getattr(config, count)
        if value is not None and value < 1:
            raise LabError(f"--{count} {value} is no positive number", f"--{count} 4")
    return names


def choose_exam(name: str, config: EvaluateConfig) -> Exam:
    """An exam at the configuration's size."""
    documents = {"technical": config.documents, "article": config.articles}.get(name, config.meetings)
    return load_exam(name, documents, config.questions if name == "article" else None, config.seed)


def examine(exam: Exam, config: EvaluateConfig) -> list[Line]:
    """All rows of one exam, with a line on the terminal for each."""
    encoder = load_encoder(config.encoder or exam.encoder)
    samples = [document.text[start : start + 600] for document in exam.documents
               for start in range(0, len(document.text), 2400)]  # fmt: skip
    samples += [sample[:60] for sample in samples]
    cost = EncodingCost(encoder, load_counter(encoder), samples)
    rows = rows_of(exam.name, config.chunkers)
    results = []
    for number, row in enumerate(rows, start=1):
        with Timer() as timer:
            results.append(run_row(exam, row, encoder, cost, config.cap, config.overlap, config.budget))
        error_console.print(f"{exam.name} {number:2} of {len(rows)}  {row.name:26} {human_seconds(timer.seconds)}",
                            markup=False, highlight=False)  # fmt: skip
    return summarise(results)


def show(exam: Exam, lines: list[Line]) -> None:
    """One exam's table."""
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for title in ("chunker", "chunks", "size", "cut", "MRR@10", "95 %", "R@5", "nDCG", "R@1k", "s"):
        table.add_column(title, justify="left" if title == "chunker" else "right", no_wrap=True)
    styles = {"right": "green", "wrong": "red", "": ""}
    for line in lines:
        table.add_row(
            line.name, str(line.chunks), str(line.median_size), f"{line.cut:.0%}",
            f"{line.mrr:.3f} {sign(line.by_rank)}", f"{line.low:.2f}-{line.high:.2f}", f"{line.recall:.3f}",
            f"{line.ndcg:.3f}", f"{line.budget_recall:.3f} {sign(line.by_budget)}", f"{line.index_seconds:.1f}",
            style=styles[line.role],
        )  # fmt: skip
    documents, questions = len(exam.documents), len(exam.questions)
    console.print(f"\n[bold]{exam.name}[/bold]: {documents} documents, {questions} questions")
    console.print(table)
    console.print(sentence_about(exam.name, lines), markup=False)


def sign(difference: Difference | None) -> str:
    """A verdict in one character."""
    return " " if difference is None else {"worse": "-", "better": "+", "": "="}[difference.verdict]


def record(run: Run, name: str, lines: list[Line]) -> None:
    """Figures for the table at the end of the stage."""
    right = next(line for line in lines if line.role == "right")
    wrong = [line for line in lines if line.role == "wrong"]
    run.metric(f"{name}_mrr", right.mrr, meaning=f"MRR@10, {right.name}")
    if wrong:
        worst = min(wrong, key=lambda line: line.mrr)
        run.metric(f"{name}_mrr_wrong", worst.mrr, meaning=f"MRR@10, {worst.name}")
    run.learnt(sentence_about(name, lines))


def judge_topics(exam: Exam, config: EvaluateConfig, run: Run) -> None:
    """How well the topic chunker's borders agree with the labels."""
    meetings = {document.id_ for document in exam.documents}
    errors = topic_errors(load_encoder(config.encoder or exam.encoder), meetings)
    run.metric(f"{exam.name}_pk", errors["topic"], meaning="Pk of the topic shifts found, 0 is perfect")
    console.print(f"topic shifts against the labels: Pk {errors['topic']:.2f} (cuts at equal distances "
                  f"{errors['even']:.2f}, no cuts {errors['none']:.2f}; 0 is perfect)")  # fmt: skip


def draw_borders(exam: Exam, config: EvaluateConfig, run: Run) -> None:
    """Where each chunker cuts the exam's first document."""
    document, encoder = exam.documents[0], load_encoder(config.encoder or exam.encoder)
    sizes = {"cap": config.cap, "overlap": config.overlap, "encoder": encoder}
    chunkers = {row.name: make_chunker(row.chunker, **{**sizes, **row.options})
                for row in rows_of(exam.name, config.chunkers) if "embedded" not in row.options}  # fmt: skip
    about = [question for question in exam.questions if question.document == document.id_]
    evidence = [spans[0] for question in about for spans in question.places]
    path = plot_borders(document, chunkers, evidence, run.dir / "borders.png")
    run.figure(path, f"where each chunker cuts {document.id_}")


def markdown(name: str, lines: list[Line]) -> str:
    """One exam's table for a README."""
    columns = ["chunks", "median size", "cut", "MRR@10 (95 %)", "right one's lead (p)", "Recall@5", "nDCG@10",
               "Recall@1k tokens", "right one's lead (p)", "index s"]  # fmt: skip
    rows = [f"### {name}", "", f"| chunker | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for line in lines:
        label = f"**{line.name}**" if line.role == "right" else f"{line.name} ({line.role})" if line.role else line.name
        cells = [
            label, str(line.chunks), str(line.median_size), f"{line.cut:.1%}",
            f"{line.mrr:.3f} ({line.low:.2f} to {line.high:.2f})", lead(line.by_rank), f"{line.recall:.3f}",
            f"{line.ndcg:.3f}", f"{line.budget_recall:.3f}", lead(line.by_budget), f"{line.index_seconds:.1f}",
        ]  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def lead(difference: Difference | None) -> str:
    """A difference and its p-value; bold where it is one."""
    if difference is None:
        return ""
    p = "< .001" if difference.p < 0.001 else "1" if difference.p >= 0.9995 else f"{difference.p:.3f}"[1:]
    text = f"{difference.behind:+.3f} ({p})"
    return f"**{text}**" if difference.verdict else text
