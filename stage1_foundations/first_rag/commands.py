"""`build`, `ask`, `trace` and `modes`: the lab at a keyboard."""

import textwrap
from dataclasses import dataclass, fields, replace
from pathlib import Path

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from labkit.cli import option
from labkit.errors import LabError
from labkit.files import write_text
from labkit.progress import console, progress
from labkit.runs import shown, start_run
from stage1_foundations.first_rag.corpus import CORPORA, load_corpus, read_folder, record_documents
from stage1_foundations.first_rag.embedding import LabEmbedding
from stage1_foundations.first_rag.index_folder import (
    build_index,
    default_folder,
    read_manifest,
    save_index,
    split_documents,
)
from stage1_foundations.first_rag.llm import LLMS
from stage1_foundations.first_rag.rag import (
    LLM_MODES,
    MODES,
    RETRIEVERS,
    Answer,
    Rag,
    RagConfig,
    check_question,
    prompt_errors,
)
from stage1_foundations.first_rag.trace import model_calls, record, span_tree
from stage1_foundations.first_rag.trace_page import html_page, terminal_tree, total_steps

EXAMPLES = {
    "python": "What does a lambda expression yield?",
    "squad": "Who designed the garden for the University Library?",
}  # a question for each corpus


@dataclass(frozen=True)
class BuildConfig:
    """What to index, and how."""

    docs: Path | None = option(None, "a folder with Markdown, text, HTML or PDF files; none: --corpus")
    corpus: str = option("python", "the corpus when there is no --docs", CORPORA)
    index: Path | None = option(None, "folder of the index; none: runs/stage1/first_rag/index")
    encoder: str = option("minilm", "encoder of the embeddings lab (e5 for Chinese), a folder, or a hub id")
    chunk_tokens: int = option(200, "longest node in tokens of the encoder, which reads 256")
    overlap: int = option(20, "tokens that neighbouring nodes share")
    skip_unreadable: bool = option(False, "leave out files that cannot be read")


BUILD_PRESETS = {"smoke": BuildConfig(encoder="random"), "cpu": BuildConfig()}
BUILD_PRESETS |= {"study": BUILD_PRESETS["cpu"], "gpu": BUILD_PRESETS["cpu"]}  # the corpus is the same


@dataclass(frozen=True)
class QuestionConfig:
    """A question, where to look for its answer, and which language model may write it."""

    question: str = option("", "the question; it may also stand right behind the command")
    index: Path | None = option(None, "folder of the index; none: runs/stage1/first_rag/index")
    encoder: str | None = option(None, "none: the one that made the index")
    retriever: str = option("fusion", "by hand, or LlamaIndex's VectorIndexRetriever", RETRIEVERS)
    top_k: int = option(3, "nodes that answer")
    llm: str = option("smollm2", "which language model, for every mode but extract", LLMS)
    api_base: str | None = option(None, "address of an OpenAI-compatible endpoint, with /v1")
    model: str | None = option(None, "the endpoint's model")
    tokens: int = option(64, "longest answer of the language model")


@dataclass(frozen=True)
class AskConfig(QuestionConfig):
    """How to answer it."""

    mode: str = option("extract", "quote a sentence, or a response synthesizer of LlamaIndex", MODES)
    threshold: float | None = option(None, "least evidence that counts; none: the encoder's own; 0: answer always")


@dataclass(frozen=True)
class TraceConfig(AskConfig):
    """A question to watch."""

    output: Path | None = option(None, "the HTML page; none: in the run's folder")


def run_build(config: BuildConfig, preset: str) -> None:
    """Read, split, embed, persist."""
    folder = config.index or default_folder()
    with start_run("stage1", "first_rag", "build", config, preset=preset) as run:
        documents = read_folder(config.docs, config.skip_unreadable) if config.docs else load_corpus(config.corpus)
        origin = str(config.docs or config.corpus)
        record_documents(run, origin, documents)
        embedding = LabEmbedding(config.encoder)
        nodes = split_documents(documents, embedding, config.chunk_tokens, config.overlap)
        index = build_index(nodes, embedding)
        manifest = save_index(index, folder, embedding, config.chunk_tokens, config.overlap, origin)
        run.metric("documents", manifest.documents)
        run.metric("nodes", manifest.nodes)
        question = EXAMPLES.get(origin, "your question")
        run.next(f'python -m stage1_foundations.first_rag ask "{question}"')
    console.print(
        f"{manifest.documents} documents, {manifest.nodes} nodes, {manifest.dimensions} dimensions "
        f"by {manifest.encoder}: {shown(folder)}",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def open_rag(config: QuestionConfig, **changes: object) -> tuple[Rag, str]:
    """The RAG that the options describe (`changes` replace some of them), and the question.

    Over a corpus of the course, no question stands for an example.
    """
    folder = config.index or default_folder()
    question = config.question.strip() or EXAMPLES.get(read_manifest(folder).origin, "")
    check_question(question)
    names = {item.name for item in fields(config)} & {item.name for item in fields(RagConfig)}
    options = {name: getattr(config, name) for name in names} | changes
    return Rag.open(folder, RagConfig(**options), config.encoder), question


def run_ask(config: AskConfig, preset: str) -> None:
    """Answer with citations, or say that there is no evidence."""
    rag, question = open_rag(config)
    if not config.question:
        console.print(question, markup=False, style="bold")
    show_answer(rag.ask(question))


def show_answer(answer: Answer) -> None:
    """The answer, then its sources."""
    console.print(answer.text, markup=False)
    for citation in answer.citations:
        head = f"\n[{citation.number}] {citation.source}  (cosine {citation.score:.2f})"
        console.print(head, markup=False, style="bold")
        console.print(Padding(Text(excerpt(citation.text, citation.quote)), (0, 0, 0, 4), expand=False))
    console.print(f"\nevidence {answer.evidence:.2f}", style="dim")


def excerpt(text: str, quote: str, width: int = 400) -> str:
    """The part of a passage around the quote, on one line, with dots where something is left out."""
    text, quote = " ".join(text.split()), " ".join(quote.split())
    if len(text) <= width:
        return text
    start = max(0, text.find(quote) - max(0, width - len(quote)) // 2)
    start = text.rfind(" ", 0, start) + 1 if start else 0
    shown = textwrap.shorten(text[start:], max(width, len(quote) + width // 4), placeholder=" ...")
    return f"... {shown}" if start else shown


def run_trace(config: TraceConfig, preset: str) -> None:
    """Answer while everything is recorded; show the steps as a tree, and write them as a page."""
    rag, question = open_rag(config)
    with start_run("stage1", "first_rag", "trace", config, preset=preset) as run:
        path = save_trace(rag, question, run.dir, config.output, show=True)
        if config.output is None:
            run.artefact(path, kind="trace")
    console.print(f"\nthe same as a page: {shown(path)}", markup=False, soft_wrap=True)


def save_trace(rag: Rag, question: str, folder: Path, output: Path | None = None, show: bool = False) -> Path:
    """Record one question and write its page to `output`, by default `trace.html` in the folder."""
    rag.warm_up()
    with record() as spans:
        answer = rag.ask(question)
    roots = span_tree(spans)
    if show:
        console.print(terminal_tree(question, roots, console.width))
        console.print(f"\n{answer.text}", markup=False)
    return write_text(output or folder / "trace.html", html_page(question, answer.text, roots))


def run_modes(config: QuestionConfig, preset: str) -> None:
    """The same question through every response synthesizer: calls of the model, seconds, and what it wrote.

    Neither gate nor check stands in between: the point is what each mode makes of the same nodes.
    """
    rag, question = open_rag(config, mode="compact", threshold=0.0)
    rag.warm_up()
    table = Table("mode", "calls", "steps", "seconds", "answer", box=None, header_style="bold")
    with start_run("stage1", "first_rag", "modes", config, preset=preset) as run:
        for mode in progress(LLM_MODES, description="ask in every mode"):
            each = Rag(rag.index, rag.embedding, replace(rag.config, mode=mode), llm=rag.llm)
            with prompt_errors(), record() as spans:
                text = str(each.engine.query(question))
            root = span_tree(spans)
            calls = model_calls(spans)
            run.metric(f"calls_{mode}", calls, "", None, f"calls of the language model by {mode}")
            text = textwrap.shorten(text, 240, placeholder=" ...")
            table.add_row(mode, str(calls), str(total_steps(root)), f"{root[0].milliseconds / 1000:.1f}", text)
    console.print(f"{question}\n", markup=False, style="bold")
    console.print(table, markup=False)


def with_question(words: list[str]) -> list[str]:
    """`ask "What is ...?"` as `ask --question "What is ...?"`.

    Raises:
        LabError: more than one word stands there, because the quotation marks are missing.
    """
    if len(words) < 2 or words[0] not in ("ask", "trace", "modes") or words[1].startswith("-"):
        return words
    if len(words) > 2 and not words[2].startswith("-"):
        text = " ".join(words[1:])
        raise LabError("the question has no quotation marks around it", f'{words[0]} "{text}"')
    return [words[0], "--question", *words[1:]]
