"""A recorded query as a tree in the terminal, and as one HTML page without anything to load."""

import html

from rich.markup import escape
from rich.tree import Tree

from stage1_foundations.first_rag.trace import TracedSpan

# what a step is for, in the words of someone reading along: of one class, or of the method in whichever class
NOTES = {
    "RetrieverQueryEngine.query": "the public door: events, callbacks, then _query",
    "RetrieverQueryEngine._query": "retrieve, postprocess, synthesize: the whole of RAG in two calls",
    "retrieve": "BaseRetriever: around every retriever, also a hand-written one",
    "VectorIndexRetriever._retrieve": "embed the question unless it comes with a vector",
    "FusionRetriever._retrieve": "by hand: dense scores by one product, BM25, fused",
    "FusionRetriever._lexical_scores": "BM25 of every node",
    "LabEmbedding.get_query_embedding": "the query's prompt is put before the text here",
    "VectorIndexRetriever._build_vector_store_query": "the vector, k, filters, and the ids of all nodes of this index",
    "SimpleVectorStore.query": "every vector, one after the other, in a Python loop; only ids and scores come back",
    "SimpleDocumentStore.get_nodes": "the store keeps no text: ids become nodes here",
    "EvidenceGate._postprocess_nodes": "drops everything when nothing fits the question",
    "synthesize": "BaseSynthesizer: answers by itself when there are no nodes, else hands their texts on",
    "CompactAndRefine.get_response": "fill the context window, then answer, then refine with what is left over",
    "Refine.get_response": "answer from the first text, then correct the answer with each further one",
    "TreeSummarize.get_response": "answer from each windowful, then from those answers, until one is left",
    "Accumulate.get_response": "answer from every text on its own, and list the answers",
    "ExtractiveSynthesizer.get_response": "by hand: the sentence that covers the question best, with its number",
    "PromptHelper.repack": "join the texts and cut them anew, so that each part fills the window",
    "predict": "fill the template, ask the model, parse the answer",
    "complete": "the model itself",
    "chat": "the model itself",
}
INDENT = 4  # characters by which a level of the tree is moved in
STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #222; margin: 2em auto; max-width: 1100px; padding: 0 1em; }
h1 { font-size: 1.3em; margin-bottom: .2em; } .sub { color: #666; margin-bottom: 1.5em; }
details { margin-left: 1.4em; border-left: 1px solid #ddd; padding-left: .6em; }
.root > details { margin-left: 0; border: 0; padding-left: 0; }
summary { cursor: pointer; padding: 2px 0; display: grid; grid-template-columns: 1fr 200px 90px; gap: .8em;
  align-items: center; }
summary .name { font-family: ui-monospace, monospace; } summary .name::before { content: "\\25BE\\00A0"; }
details:not([open]) > summary .name::before { content: "\\25B8\\00A0"; }
 summary .note { color: #777; font-size: .9em; }
.bar { position: relative; height: 10px; background: #f2f2f2; }
.bar i { position: absolute; top: 0; bottom: 0; background: #0072b2; min-width: 2px; }
.ms { text-align: right; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1em .9em; margin: .2em 0 .5em 0; font-size: .92em; }
dt { color: #0072b2; } dt.out { color: #007a55; } dt.event { color: #a05a00; } dt.bad { color: #b00020; }
dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 14em; overflow-y: auto; }
"""


def note_on(name: str) -> str:
    """What a step is for, or nothing."""
    return NOTES.get(name) or NOTES.get(name.rpartition(".")[2], "")


def total_steps(roots: list[TracedSpan]) -> int:
    """How many spans the trees hold."""
    return sum(1 + total_steps(span.children) for span in roots)


def terminal_tree(question: str, roots: list[TracedSpan], width: int = 100) -> Tree:
    """The spans for `console.print`: name, milliseconds, place; inputs and output cut to one line each."""
    tree = Tree(f"[bold]{escape(question)}")
    for span in roots:
        _add(tree, span, width - INDENT)
    return tree


def _add(parent: Tree, span: TracedSpan, width: int) -> None:
    """A branch; `width` is what is left of the line at its depth."""
    lines = [f"[bold cyan]{escape(span.name)}[/]  [green]{span.milliseconds:.1f} ms[/]"]
    if note := note_on(span.name):
        lines.append(f"[italic]{escape(one_line(note, width))}[/]")
    if span.place:
        lines.append(f"[dim]{escape(span.place)}[/]")
    rows = [("blue", key, value) for key, value in span.inputs.items()]
    rows.append(("red", "failed", span.error) if span.error else ("magenta", "->", span.output))
    for colour, key, value in rows:
        if value:
            lines.append(f"[{colour}]{escape(key)}[/] {escape(one_line(value, width - len(key) - 1))}")
    branch = parent.add("\n".join(lines))
    for child in span.children:
        _add(branch, child, width - INDENT)


def one_line(text: str, width: int) -> str:
    """Text on one line, cut at `width` characters, at least 20."""
    text, width = " ".join(text.split()), max(20, width)
    return text if len(text) <= width else text[: width - 3] + "..."


def html_page(question: str, answer: str, roots: list[TracedSpan]) -> str:
    """The spans as a page: a tree that opens and closes, a bar for when each ran, everything that went in and out.

    Texts of documents and answers are escaped: a document may hold anything.
    """
    begin = min((span.started for span in roots), default=0.0)
    end = max((span.finished or span.started for span in roots), default=begin)
    scale = max(end - begin, 1e-9)
    body = "".join(_details(span, begin, scale) for span in roots)
    facts = f"{total_steps(roots)} steps, {1000 * (end - begin):.1f} ms"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(question)}</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>{html.escape(question)}</h1>\n"
        f'<p>{html.escape(answer)}</p>\n<p class="sub">{facts}. Click a step to open or close it.</p>\n'
        f'<div class="root">{body}</div>\n</body></html>\n'
    )


def _details(span: TracedSpan, begin: float, scale: float) -> str:
    left = 100 * (span.started - begin) / scale
    wide = 100 * ((span.finished or span.started) - span.started) / scale
    note = note_on(span.name)
    note = f' <span class="note">{html.escape(note)}</span>' if note else ""
    rows = [("place", "", span.place)] if span.place else []
    rows += [(key, "", value) for key, value in span.inputs.items()]
    rows += [(name, "event", value) for name, value in span.events]
    rows += [("failed", "bad", span.error)] if span.error else [("output", "out", span.output)]
    terms = "".join(
        f'<dt class="{kind}">{html.escape(key)}</dt><dd>{html.escape(value)}</dd>' for key, kind, value in rows if value
    )
    children = "".join(_details(child, begin, scale) for child in span.children)
    return (
        f'<details open><summary><span><span class="name">{html.escape(span.name)}</span>{note}</span>'
        f'<span class="bar"><i style="left:{left:.2f}%;width:{wide:.2f}%"></i></span>'
        f'<span class="ms">{span.milliseconds:.1f} ms</span></summary>\n<dl>{terms}</dl>{children}</details>\n'
    )
