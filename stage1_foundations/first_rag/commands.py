"""`build`, `ask`, `trace` and `modes`: the lab at a keyboard."""

import textwrap
from dataclasses import dataclass, fields
from pathlib import Path

from rich.table import Table

from labkit.cli import option
from labkit.errors import LabError
from labkit.files import write_text
from labkit.progress import console, progress
from labkit.runs import shown, start_run
from stage1_foundations.first_rag.corpus import CORPORA, load_corpus, read_folder
from stage1_foundations.first_rag.embedding import LabEmbedding
from stage1_foundations.first_rag.evidence import THRESHOLD
from stage1_foundations.first_rag.index_folder import build_index, default_folder, save_index, split_documents
from stage1_foundations.first_rag.llm import LLMS
from stage1_foundations.first_rag.rag import LLM_MODES, MODES, RETRIEVERS, Answer, Rag, RagConfig, check_question
from stage1_foundations.first_rag.trace import record, span_tree
from stage1_foundations.first_rag.trace_page import html_page, terminal_tree, total_steps


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


BUILD_PRESETS = {"cpu": BuildConfig()}


@dataclass(frozen=True)
class AskConfig:
    """A question, and who answers it."""

    question: str = option("", "the question; it may also stand right behind the command")
    index: Path | None = option(None, "folder of the index; none: runs/stage1/first_rag/index")
    encoder: str | None = option(None, "none: the one that made the index")
    mode: str = option("extract", "quote a sentence, or a response synthesizer of LlamaIndex", MODES)
    retriever: str = option("fusion", "by hand, or LlamaIndex's VectorIndexRetriever", RETRIEVERS)
    top_k: int = option(3, "nodes that answer")
    threshold: float = option(THRESHOLD, "least evidence that counts; 0 answers always")
    llm: str = option("smollm2", "which language model, for every mode but extract", LLMS)
    api_base: str | None = option(None, "address of an OpenAI-compatible endpoint, with /v1")
    model: str | None = option(None, "the endpoint's model")
    tokens: int = option(64, "longest answer of the language model")


@dataclass(frozen=True)
class TraceConfig(AskConfig):
    """A question to watch."""

    output: Path | None = option(None, "the HTML page; none: in the run's folder")


def run_build(config: BuildConfig, preset: str) -> None:
    """Read, split, embed, persist."""
    folder = config.index or default_folder()
    with start_run("stage1", "first_rag", "build", config, preset=preset) as run:
        documents = read_folder(config.docs, config.skip_unreadable) if config.docs else load_corpus(config.corpus)
        embedding = LabEmbedding(config.encoder)
        nodes = split_documents(documents, embedding, config.chunk_tokens, config.overlap)
        index = build_index(nodes, embedding)
        origin = str(config.docs or config.corpus)
        manifest = save_index(index, folder, embedding, config.chunk_tokens, config.overlap, origin)
        run.metric("documents", manifest.documents)
        run.metric("nodes", manifest.nodes)
        run.next('python -m stage1_foundations.first_rag ask "How does a with statement work?"')
    console.print(
        f"{manifest.documents} documents, {manifest.nodes} nodes, {manifest.dimensions} dimensions "
        f"by {manifest.encoder}: {shown(folder)}",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def open_rag(config: AskConfig, **changes: object) -> Rag:
    """The RAG that the options describe; `changes` replace some of them."""
    check_question(config.question)
    options = {item.name: getattr(config, item.name) for item in fields(RagConfig)} | changes
    return Rag.open(config.index or default_folder(), RagConfig(**options), config.encoder)


def run_ask(config: AskConfig, preset: str) -> None:
    """Answer with citations, or say that there is no evidence."""
    show_answer(open_rag(config).ask(config.question))


def show_answer(answer: Answer) -> None:
    """The answer, then its sources."""
    console.print(answer.text, markup=False)
    for citation in answer.citations:
        head = f"\n[{citation.number}] {citation.source}  (cosine {citation.score:.2f})"
        console.print(head, markup=False, style="bold")
        console.print(textwrap.indent(textwrap.shorten(citation.text, 400, placeholder=" ..."), "    "), markup=False)
    console.print(f"\nevidence {answer.evidence:.2f}", style="dim")


def run_trace(config: TraceConfig, preset: str) -> None:
    """Answer while everything is recorded; show the steps as a tree, and write them as a page."""
    rag = open_rag(config)
    with start_run("stage1", "first_rag", "trace", config, preset=preset) as run:
        path = save_trace(rag, config.question, run.dir, config.output, show=True)
        if config.output is None:
            run.artefact(path, kind="trace")
    console.print(f"\n{shown(path)}", markup=False, soft_wrap=True)


def save_trace(rag: Rag, question: str, folder: Path, output: Path | None = None, show: bool = False) -> Path:
    """Record one question and write its page to `output`, by default `trace.html` in the folder."""
    with record() as spans:
        answer = rag.ask(question)
    roots = span_tree(spans)
    if show:
        console.print(terminal_tree(question, roots, max(40, console.width - 30)))
        console.print(f"\n{answer.text}", markup=False)
    return write_text(output or folder / "trace.html", html_page(question, answer.text, roots))


def run_modes(config: AskConfig, preset: str) -> None:
    """The same question through every response synthesizer: calls of the model, tokens, time, answer."""
    rag = open_rag(config, mode="compact", threshold=min(config.threshold, 0.0))
    table = Table("mode", "calls", "steps", "seconds", "answer", box=None, header_style="bold")
    with start_run("stage1", "first_rag", "modes", config, preset=preset) as run:
        for mode in progress(LLM_MODES, description="ask in every mode"):
            options = {item.name: getattr(rag.config, item.name) for item in fields(RagConfig)} | {"mode": mode}
            each = Rag(rag.index, rag.embedding, RagConfig(**options), llm=rag.llm)
            with record() as spans:
                each.ask(config.question)
            root = span_tree(spans)
            response = next(span.output for span in spans if span.name.endswith(".query"))
            calls = sum(span.name.endswith((".complete", ".chat")) for span in spans)
            run.metric(f"calls_{mode}", calls)
            text = textwrap.shorten(response, 160, placeholder=" ...")
            table.add_row(mode, str(calls), str(total_steps(root)), f"{root[0].milliseconds / 1000:.1f}", text)
    console.print(table)


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
