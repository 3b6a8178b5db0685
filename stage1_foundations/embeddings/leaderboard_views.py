"""The leaderboard on a terminal, in Markdown, in HTML, and as a plot of quality against speed and dimensions."""

import zlib
from html import escape
from pathlib import Path

from rich.table import Table

from labkit import plots
from labkit.files import write_text
from stage1_foundations.embeddings.leaderboard import TYPES, Entry, ModelRow, Summary

MEASURES = {
    "Retrieval": "nDCG@10", "STS": "Spearman", "Classification": "accuracy", "Clustering": "V-measure",
    "BitextMining": "accuracy",
}  # fmt: skip
SHORT = {"Classification": "Class.", "Clustering": "Clust.", "BitextMining": "Bitext"}
LEGEND = (
    "Times 100. ±: half of the 95 % bootstrap interval. *: the best of its column, or tied with it (paired bootstrap "
    "over the queries, 5 % level). †: trained on data of the same source. –: the model cannot do it."
)
OTHERS = ["#000000", "#7f3c8d", "#7a7a7a", "#8c564b", "#3969ac", "#556b2f"]
Column = tuple[str, str, str]  # (heading, sub-heading, key in cells or means)
PUBLISHED = "published "  # before a task's name: the key of the column beside it


def task_columns(summary: Summary, kind: str) -> list[Column]:
    """One column a task of a type, and one more where somebody published scores of the task."""
    columns: list[Column] = []
    for task in summary.board.tasks:
        if task.type == kind:
            columns.append((task.short, f"{task.languages}, {task.items:,}", task.name))
            entries = [summary.cells.get((model, task.name)) for model in summary.order]
            if any(entry is not None and entry.published is not None for entry in entries):
                columns.append(("published", "difference", PUBLISHED + task.name))
    return columns


def mean_columns(summary: Summary) -> list[Column]:
    """One column a task type, and the mean over types."""
    kinds = [kind for kind in TYPES if any(task.type == kind for task in summary.board.tasks)]
    columns = [(kind, MEASURES[kind], kind) for kind in kinds]
    return [*columns, ("Mean", "of types", "mean")] if len(kinds) > 1 else columns


def entry_of(summary: Summary, model: str, key: str) -> Entry | None:
    """The number of a cell, wherever it is kept."""
    return summary.cells.get((model, key)) or summary.means.get((model, key))


def text_of(summary: Summary, model: str, key: str) -> str:
    """A cell: 85.1 ±1.2*†; in a column of published scores 82.0 +3.1, where ours is 85.1."""
    entry = entry_of(summary, model, key.removeprefix(PUBLISHED))
    if entry is None:
        return "–"
    if key.startswith(PUBLISHED):
        published = entry.published
        return "" if published is None else f"{100 * published:.1f} {100 * (entry.score - published):+.1f}"
    marks = ("*" if entry.tied else "") + ("†" if entry.seen else "")
    return f"{100 * entry.score:.1f} ±{50 * (entry.high - entry.low):.1f}{marks}"


def aligned(texts: list[str]) -> list[str]:
    """The cells of a column with blanks in place of absent marks, so that the digits stand below each other."""
    marks = [len(text) - len(text.rstrip("*†")) for text in texts]
    return [text + " " * (max(marks) - own) for text, own in zip(texts, marks, strict=True)]


def notes(summary: Summary) -> list[str]:
    """What stands below the tables: contamination, and what is special about a model."""
    short = {task.name: task.short for task in summary.board.tasks}
    found = [f"† {model} on {short[task]}: trained on {entry.seen}"
             for (model, task), entry in summary.cells.items() if entry.seen]  # fmt: skip
    for row in summary.board.models:
        if row.trained_on is None:
            found.append(f"{row.name}: nobody says what it was trained on")
        if row.note:
            found.append(f"{row.name}: {row.note}")
    return found


def speed_text(row: ModelRow) -> str:
    """Passages a second."""
    speed = row.passages_per_second
    return "–" if speed is None else f"{speed:.0f}" if speed < 10_000 else f"{speed / 1000:.0f}k"


def terminal_tables(summary: Summary) -> list[tuple[str, Table]]:
    """Titles and tables: the means first, then one table a task type. They fit 100 characters."""
    rows = {row.name: row for row in summary.board.models}
    columns = mean_columns(summary)
    means = _table(["model", "dim", "psg/s", *(SHORT.get(heading, heading) for heading, _, _ in columns)])
    cells = [aligned([text_of(summary, model, key).replace(" ", "") for model in summary.order])
             for _, _, key in columns]  # fmt: skip
    for model, *texts in zip(summary.order, *cells, strict=True):
        means.add_row(model, str(rows[model].dimensions or "–"), speed_text(rows[model]), *texts)
    tables = [("Means by task type", means)]
    for kind in TYPES:
        columns = task_columns(summary, kind)
        if not columns:
            continue
        models = able(summary, columns)
        table = _table(["model", *(f"{heading}\n{below}" for heading, below, _ in columns)])
        cells = [aligned([text_of(summary, model, key) for model in models]) for _, _, key in columns]
        for texts in zip(models, *cells, strict=True):
            table.add_row(*texts)
        tables.append((f"{kind}, {MEASURES[kind]}", table))
    return tables


def able(summary: Summary, columns: list[Column]) -> list[str]:
    """The models that have a number in one of the columns, best first."""
    return [model for model in summary.order if any(entry_of(summary, model, key) for _, _, key in columns)]


def _table(headings: list[str]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    return table


def markdown(summary: Summary) -> str:
    """The same tables in Markdown."""
    rows = {row.name: row for row in summary.board.models}
    columns = mean_columns(summary)
    lines = _markdown_head(["model", "dim", "passages/s"], columns)
    for model in summary.order:
        cells = [text_of(summary, model, key) for _, _, key in columns]
        lines.append(f"| {model} | {rows[model].dimensions or '–'} | {speed_text(rows[model])} | {' | '.join(cells)} |")
    for kind in TYPES:
        columns = task_columns(summary, kind)
        if columns:
            lines += ["", f"**{kind}**, {MEASURES[kind]}", "", *_markdown_head(["model"], columns)]
            for model in able(summary, columns):
                lines.append(f"| {model} | {' | '.join(text_of(summary, model, key) for _, _, key in columns)} |")
    escaped = [line.replace("*", "\\*") for line in (*lines, "", LEGEND, *(f"\n{note}" for note in notes(summary)))]
    return "\n".join(escaped).replace("\\*\\*", "**") + "\n"


def _markdown_head(first: list[str], columns: list[Column]) -> list[str]:
    heads = [*first, *(f"{heading} ({below})" for heading, below, _ in columns)]
    return [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]


STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222}
table{border-collapse:collapse;margin:0 0 1.5rem}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #e6e6e6;white-space:nowrap}
img{max-width:100%}th:first-child,td:first-child{text-align:left}.tied{background:#e2f2ec}small{color:#777}h2{font-size:1.1rem}"""


def html(summary: Summary) -> str:
    """One page without scripts; ties with the best are shaded."""
    parts = [f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Embeddings</title><style>{STYLE}</style>",
             f"<h1>Embeddings, preset {escape(summary.board.preset)}</h1><p>{escape(LEGEND)}</p>"]  # fmt: skip
    groups = [("Means by task type", mean_columns(summary))]
    groups += [(f"{kind}, {MEASURES[kind]}", task_columns(summary, kind)) for kind in TYPES]
    rows = {row.name: row for row in summary.board.models}
    for title, columns in groups:
        if not columns:
            continue
        wide = title.startswith("Means")
        heads = [("dim", ""), ("passages/s", "")] if wide else []
        heads += [(head, below) for head, below, _ in columns]
        cells = "".join(f"<th>{escape(head)}<br><small>{escape(below)}</small></th>" for head, below in heads)
        parts.append(f"<h2>{escape(title)}</h2><table><tr><th>model</th>{cells}</tr>")
        for model in summary.order if wide else able(summary, columns):
            extra = f"<td>{rows[model].dimensions or '–'}</td><td>{speed_text(rows[model])}</td>" if wide else ""
            cells = "".join(_html_cell(summary, model, key) for _, _, key in columns)
            parts.append(f"<tr><td>{escape(model)}</td>{extra}{cells}</tr>")
        parts.append("</table>")
    parts += [f"<p>{escape(note)}</p>" for note in notes(summary)]
    parts.append('<img src="leaderboard.png" alt="quality against speed, and every score">')
    return "\n".join([*parts, "</html>"]) + "\n"


def _html_cell(summary: Summary, model: str, key: str) -> str:
    entry = entry_of(summary, model, key)  # None in a column of published scores
    shade = ' class="tied"' if entry is not None and entry.tied else ""
    title = f' title="trained on {escape(entry.seen)}"' if entry is not None and entry.seen else ""
    return f"<td{shade}{title}>{escape(text_of(summary, model, key))}</td>"


def colour_of(model: str) -> str:
    """A model has one colour in all figures; those that are not the lab's own share the darker ones, by name."""
    own = ["e5", "bm25", "minilm", "glove", "gpt", "random"]
    return plots.COLOURS[own.index(model)] if model in own else OTHERS[zlib.crc32(model.encode()) % len(OTHERS)]


def draw(summary: Summary, path: Path) -> Path:
    """Quality against encode speed (the bubble is the number of dimensions), and every task's scores by model."""
    rows = {row.name: row for row in summary.board.models}
    figure, (left, right) = plots.new_figure(1, 2, width=11.0, height=4.6, width_ratios=[1, 1.25])
    for model in summary.order:
        entry, speed = summary.means.get((model, "Retrieval")), rows[model].passages_per_second
        if entry is None or not speed:
            continue
        colour = colour_of(model)
        size = 12 + 0.5 * (rows[model].dimensions or 0)
        left.errorbar(speed, 100 * entry.score, yerr=[[100 * (entry.score - entry.low)],
                      [100 * (entry.high - entry.score)]], color=colour, linewidth=1.2)  # fmt: skip
        left.scatter([speed], [100 * entry.score], s=size, color=colour, zorder=3)
        left.annotate(f"{model} ({rows[model].dimensions or 'no'} dim.)", (speed, 100 * entry.score),
                      xytext=(8, 5), textcoords="offset points", fontsize=8)  # fmt: skip
    left.set(xscale="log", xlabel="passages encoded per second", ylabel="retrieval, mean nDCG@10 × 100",
             title="Quality against speed")  # fmt: skip
    left.margins(x=0.3, y=0.12)
    names = [task.name for task in summary.board.tasks]
    for number, model in enumerate(summary.order):
        found = [(row, summary.cells[model, name]) for row, name in enumerate(names) if (model, name) in summary.cells]
        offset = 0.11 * (number - (len(summary.order) - 1) / 2)
        right.errorbar(
            [100 * entry.score for _, entry in found], [row + offset for row, _ in found],
            xerr=[[100 * max(entry.score - entry.low, 0) for _, entry in found],
                  [100 * max(entry.high - entry.score, 0) for _, entry in found]],
            fmt="o", markersize=3.5, linewidth=1.0, label=model, color=colour_of(model),
        )  # fmt: skip
    right.set_yticks(range(len(names)), [task.short for task in summary.board.tasks])
    right.invert_yaxis()
    right.set(xlabel="score × 100 with its 95 % interval", title="The winner changes with the task")
    right.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return plots.save_figure(figure, path)


def write_views(summary: Summary, folder: Path) -> None:
    """leaderboard.md, leaderboard.html and leaderboard.png."""
    write_text(folder / "leaderboard.md", markdown(summary))
    write_text(folder / "leaderboard.html", html(summary))
    draw(summary, folder / "leaderboard.png")
