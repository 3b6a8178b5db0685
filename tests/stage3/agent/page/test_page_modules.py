"""The page's modules by themselves: parser, backoff, the fold of events, the layout of the graph, the words."""

import json
import re
from pathlib import Path

import pytest
from stand_in import PAIRS

PAGE = Path(__file__).parents[4] / "stage3_agents_llmops" / "agent" / "page"
SCRIPTS = sorted(PAGE.glob("*.js"))
PAGES = sorted(PAGE.glob("*.html"))


@pytest.fixture(scope="module")
def modules(browser, stand_in_server):
    """call(module, JavaScript function of (module, argument), argument): what it returns."""
    page = browser.new_context().new_page()
    page.goto(stand_in_server[1].url + "/static/icon.svg")

    def call(module: str, function: str, argument=None):
        imported = f"await import('/static/{module}.js')"
        return page.evaluate(f"async (argument) => ({function})({imported}, argument)", argument)

    yield call
    page.context.close()


# ----------------------------------------------------------------------------------------------- without a browser


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_of_data(path):
    """Catches: one careless innerHTML."""
    code = re.sub(r"^ *//.*", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    makers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    assert not re.search(makers, code)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_hold_no_script_no_style_and_a_strict_policy(path):
    """Catches: an inline handler that would need 'unsafe-inline'."""
    html = path.read_text(encoding="utf-8")
    assert "script-src 'self'" in html
    assert "unsafe" not in html
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", html)
    assert not re.search(r"<script(?![^>]* src=)", html)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", html), "the page works without a network"


def test_every_word_of_the_pages_exists_in_both_languages():
    """Catches: a key without a text, a Chinese page with English holes, a placeholder that only one language fills."""
    line = re.compile(r'^  (\w+): "((?:[^"\\]|\\.)*)",$', re.MULTILINE)
    words = {name: dict(line.findall((PAGE / f"words.{name}.js").read_text("utf-8"))) for name in ("en", "zh")}
    assert list(words["en"]) == list(words["zh"])
    for key, text in words["en"].items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", words["zh"][key])), key
    html = "".join(page.read_text("utf-8") for page in PAGES)
    code = re.sub(r"(^| )//.*", "", "".join(path.read_text("utf-8") for path in SCRIPTS), flags=re.MULTILINE)
    used = set(re.findall(r'data-t(?:-[a-z-]+)?="(\w+)"', html))
    used |= set(re.findall(r'\b(?:t|notice|announce)\("(\w+)"', code))
    assert len(used) > 80
    assert used - {"key"} <= set(words["en"])
    untranslated = [key for key, text in words["zh"].items() if not re.search(r"[一-鿿]", text)]
    assert untranslated == []


def test_the_course_names_everything_the_agents_can_say():
    """Catches: an intent, a slot or a reason that the page shows as a bare code."""
    from data.customer_service.schema import INTENTS, REASONS, SLOTS

    words = (PAGE / "words.en.js").read_text("utf-8")
    for prefix, names in (("intent", INTENTS), ("slot", SLOTS), ("reason", REASONS)):
        assert not [name for name in names if f"  {prefix}_{name}: " not in words]


# ------------------------------------------------------------------------------------------------- in the browser

STREAM = (
    'id: 1\nevent: token\ndata: {"text": "a"}\n\n: ping\n\nid: 2\ndata: one\ndata: two\n\n'
    "retry: 900\nid: 3\n\nevent: end\ndata:\n\n"
)
EXPECTED = [
    {"id": "1", "type": "token", "data": '{"text": "a"}'},
    {"id": "2", "type": "message", "data": "one\ntwo"},
    {"id": "3", "type": "end", "data": ""},
]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_the_parser_reads_a_stream_wherever_it_is_cut(modules, newline):
    """Catches: a field lost at a chunk's edge, a CRLF cut in half that ends an event too early."""
    text = STREAM.replace("\n", newline)
    found = modules("stream", """(m, text) => { const results = new Set();
        for (let cut = 0; cut <= text.length; cut++) { const parser = new m.FrameParser();
            const events = [...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut)), ...parser.push('\\n')];
            results.add(JSON.stringify([events, parser.retry])); }
        return [...results]; }""", text)  # fmt: skip
    assert [json.loads(one) for one in found] == [[EXPECTED, 900]]


def test_waits_grow_are_spread_and_end_at_eight_seconds(modules):
    """Catches: a thousand pages that knock at the same moment, and one that never knocks again."""
    both = "[m.backoff(n, 400, () => 0), m.backoff(n, 400, () => 1)]"
    waits = modules("stream", f"(m) => [1, 2, 3, 9].map((n) => {both})")
    assert waits == [[200, 400], [400, 800], [800, 1600], [4000, 8000]]


def fold(modules, events: list[tuple[int, str, dict]]) -> dict:
    return modules("run_state", """(m, events) => { const run = m.newRun('r', 0);
        events.forEach(([id, type, data], i) => m.apply(run, {id, type, data}, 10 * (i + 1)));
        return {...run, citations: run.citations.size}; }""", events)  # fmt: skip


def test_an_event_told_twice_counts_once(modules):
    """Catches: "the the" after a reconnect."""
    token = [1, "token", {"text": "the "}]
    end = [3, "end", {"reason": "answered", "text": "x"}]
    run = fold(modules, [token, token, [2, "token", {"text": "lamp"}], token, end])
    assert (run["text"], run["status"], run["last"]) == ("the lamp", "answered", 3)
    assert run["times"] == {"firstEvent": 10, "firstToken": 10, "whole": 50}


def test_a_resumed_run_forgets_its_half_answer_and_a_resync_everything(modules):
    """Catches: two beginnings in one answer."""
    half = [[1, "start", {}], [2, "node", {"name": "guard", "phase": "start"}], [3, "token", {"text": "The la"}]]
    resumed = fold(modules, [*half, [4, "start", {"resumed": True}], [5, "token", {"text": "The lamp"}]])
    assert (resumed["text"], len(resumed["path"])) == ("The lamp", 1)
    end = [9, "end", {"reason": "answered", "text": "The lamp is here"}]
    resync = fold(modules, [*half, [8, "resync", {"oldest": 9}], end])
    assert (resync["text"], resync["partial"]) == ("The lamp is here", True)


def test_a_tools_result_finds_its_call(modules):
    """Catches: a tool that looks as if it ran for ever, and results of two calls mixed up."""
    call = {"name": "order", "phase": "call", "arguments": {"order_id": "A"}}
    run = fold(modules, [[1, "tool", call], [2, "tool", {"name": "order", "phase": "result", "ok": True}],
                         [3, "tool", {**call, "arguments": {"order_id": "B"}}]])  # fmt: skip
    assert [(tool["arguments"]["order_id"], tool["phase"]) for tool in run["tools"]] == [("A", "result"), ("B", "call")]


def topology(pairs) -> dict:
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    inner = [{"id": f"{name}:lookup", "parent": name} for name in names if name.endswith("_agent")]
    return {
        "nodes": [*({"id": name} for name in names), *inner],
        "edges": [{"source": a, "target": b} for a, b in pairs],
    }


def test_the_graph_is_laid_out_in_rows_without_overlap(modules):
    """Catches: boxes on top of one another, agents scattered over rows, a loop that never ends the layout."""
    boxes = modules("graph", """(m, topology) => { const { ids, agents, edges } = m.normalise(topology);
        const view = Object.create(m.GraphView.prototype); view.place(m.layers(ids, edges, agents));
        return [...view.boxes].map(([id, box]) => ({ id, ...box })); }""", topology(PAIRS))  # fmt: skip
    by_row: dict[int, list[dict]] = {}
    for box in boxes:
        by_row.setdefault(box["layer"], []).append(box)
    assert {box["id"] for box in by_row[4]} == {"order_agent", "refund_agent", "product_agent", "complaint_agent"}
    assert [by_row[row][0]["id"] for row in range(4)] == ["start", "guard", "classify", "supervisor"]
    for row in by_row.values():
        row.sort(key=lambda box: box["x"])
        assert row[0]["x"] >= 0
        assert row[-1]["x"] + row[-1]["width"] <= 372
        assert all(left["x"] + left["width"] < right["x"] for left, right in zip(row, row[1:], strict=False))


def test_a_graph_of_any_shape_can_be_drawn(modules):
    """Catches: a page without a panel because somebody added a node."""
    for pairs in ([("a", "b"), ("b", "a")], [("x", "y")], [("a", "b"), ("a", "c"), ("c", "d"), ("d", "a"), ("b", "d")]):
        drawn = modules("graph", """(m, topology) => { const { ids, agents, edges } = m.normalise(topology);
            return m.layers(ids, edges, agents).flat().sort(); }""", topology(pairs))  # fmt: skip
        assert drawn == sorted({name for pair in pairs for name in pair})
