"""Each test names the bug that it catches."""

import copy
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabError
from stage3_agents_llmops.experiments import Experiments
from stage3_agents_llmops.experiments.configuration import DEFAULT_FILE, all_problems

BASE = """
[parameters]
top_k = 5
rerank = false
prompt = "plain"

[attributes]
language = "text"
orders = "number"

[[layers]]
name = "retrieval"
parameters = ["top_k", "rerank"]

[[layers]]
name = "dialogue"
parameters = ["prompt"]

[[domains]]
name = "inner"
layer = "dialogue"
traffic = [50, 100]

[[layers]]
name = "wording"
domain = "inner"
parameters = ["prompt"]

[[experiments]]
name = "rerank"
layer = "retrieval"
traffic = [0, 60]
arms = [
    { name = "control", weight = 50, parameters = { rerank = false } },
    { name = "treatment", weight = 50, parameters = { rerank = true } },
]

[[experiments]]
name = "deep"
layer = "retrieval"
traffic = [60, 90]
when = { language = "zh" }
arms = [{ name = "control", weight = 50 }, { name = "treatment", weight = 50, parameters = { top_k = 8 } }]

[[overrides]]
experiment = "rerank"
arm = "treatment"
ids = ["anna"]

[[metrics]]
name = "resolved"
kind = "proportion"
column = "resolved"
"""
Tables = dict


def row(tables: Tables, section: str, name: str) -> dict:
    return next(each for each in tables[section] if each["name"] == name)


def experiment(**fields) -> object:
    """A change of the experiment `deep`."""
    return lambda tables: row(tables, "experiments", "deep").update(fields)


def layer(name: str, **fields) -> object:
    return lambda tables: row(tables, "layers", name).update(fields)


def arm(number: int, **fields) -> object:
    return lambda tables: row(tables, "experiments", "deep")["arms"][number].update(fields)


def drop(section: str, name: str, field: str) -> object:
    return lambda tables: row(tables, section, name).pop(field)


def extra(section: str, **fields) -> object:
    return lambda tables: tables.setdefault(section, []).append(fields)


PAIR = [{"name": "a", "weight": 50}, {"name": "b", "weight": 50}]
WRONG = [  # what is changed, the message, the advice
    # traffic
    (experiment(traffic=[50, 90]),
     "experiment rerank and experiment deep overlap in layer retrieval (50 to 60 % by user)",
     "experiment deep: traffic = [60, 100] is free"),
    (experiment(traffic=[[50, 70], [80, 90]]),
     "experiment rerank and experiment deep overlap in layer retrieval (50 to 60 % by user)",
     "experiment deep: traffic = [60, 80] is free"),
    (experiment(traffic=[[10, 100]]),
     "layer retrieval gives away 150 % of its traffic by user: experiment rerank 60 %, experiment deep 90 %",
     "100 % in all, or another layer for one of them"),
    (experiment(traffic=[60, 110]), "experiment deep asks for 60 to 110 % of its layer's traffic",
     "from 0 to 100 %, rising: [0, 50]"),
    (experiment(traffic=[80, 70]), "experiment deep asks for 80 to 70 % of its layer's traffic",
     "from 0 to 100 %, rising: [0, 50]"),
    (experiment(traffic=["0", "30"]), "traffic of experiment deep is no span in per cent", "traffic = [0, 50]"),
    (experiment(traffic=[60]), "traffic of experiment deep is no span in per cent", "traffic = [0, 50]"),
    (experiment(coverage=120), "experiment deep has a coverage of 120 %", "a number from 0 to 100"),
    # names
    (experiment(layer="retreival"), "experiment deep is in the layer retreival, which does not exist", "retrieval"),
    (layer("wording", domain="iner"), "layer wording is in the domain iner, which does not exist", "inner"),
    (experiment(unit="sesion"), "experiment deep diverts by sesion, which does not exist", "session"),
    (experiment(name="rerank"), "there are 2 experiments called rerank", "a name of its own for each"),
    (experiment(name="deep.search"), "experiment 'deep.search' cannot be a name", "letters, digits, - and _"),
    (extra("domains", name="default", layer="retrieval", traffic=[95, 100]), "there are 2 domains called default",
     "a name of its own for each"),
    # fields
    (lambda tables: tables.update(experiment=[]), "there is no section experiment", "[[experiments]]"),
    (experiment(trafic=[0, 10]), "experiment deep has an unknown field trafic", None),
    (arm(0, wieght=3), "arm control of experiment deep has an unknown field wieght", None),
    (drop("experiments", "deep", "arms"), "experiment deep has no arms", None),
    (drop("layers", "retrieval", "parameters"), "layer retrieval has no parameters", 'parameters = ["top_k"]'),
    (arm(0, weight="50"), "weight of arm control of experiment deep must be a number", "weight = 50"),
    (layer("retrieval", launch=1), "launch of layer retrieval must be true or false", "launch = true"),
    (lambda tables: tables.update(layers={}), "layers is no list of tables", "[[layers]] above each"),
    (lambda tables: tables.update(parameters=[1]), "parameters is no table", "[parameters]"),
    # parameters
    (layer("dialogue", parameters=["prompt", "top_k"]),
     "parameter top_k is in the layers retrieval and dialogue of one domain",
     "one of them: two experiments would set it at once"),
    (layer("retrieval", parameters=["topk", "rerank", "top_k"]),
     "layer retrieval holds the parameter topk, which does not exist", "top_k"),
    (layer("wording", parameters=["prompt", "rerank"]),
     "layer wording holds rerank, which the layer around it, dialogue, does not",
     "rerank in dialogue too, or not in wording"),
    (arm(1, parameters={"prompt": "short"}),
     "arm treatment of experiment deep sets the parameter (not of layer retrieval) prompt, which does not exist", None),
    (arm(1, parameters={"top_k": "8"}), "arm treatment of experiment deep sets top_k to '8', its default is 5",
     "a value of the same type"),
    (arm(1, parameters={"rerank": 1}), "arm treatment of experiment deep sets rerank to 1, its default is False",
     "a value of the same type"),
    # arms
    (arm(0, weight=40), "the arms of experiment deep take 90 % of it: control 40, treatment 50",
     "weights from 0 on that sum to 100"),
    (experiment(arms=[{"name": "control", "weight": 100}]), "experiment deep has 1 arms: nothing to compare",
     "at least a control and a treatment"),
    (arm(1, name="control"), "experiment deep has two arms of one name", "a name of its own for each"),
    # salts
    (layer("dialogue", salt="retrieval"), "layers retrieval and dialogue share the salt retrieval: not independent",
     "a salt of its own for each, or none: it is the name then"),
    (experiment(salt="rerank"), "experiments rerank and deep share the salt rerank: not independent",
     "a salt of its own for each, or none: it is the name then"),
    # conditions
    (experiment(when={"langage": "zh"}), "experiment deep asks for the attribute langage, which does not exist",
     "language"),
    (experiment(when={"orders": {"minimum": 1}}),
     "the condition on orders of experiment deep has the operator minimum, which does not exist", "min"),
    (experiment(when={"orders": {"min": "1"}}), "experiment deep compares orders, a number, with '1'",
     "a value of that kind"),
    (experiment(when={"orders": {"min": [1]}}), "min in the condition on orders of experiment deep has no single value",
     "min = 3"),
    (experiment(when={"language": {"min": "a"}}),
     "the condition on language of experiment deep has bounds, and language is a text", '{ not = "..." } or a list'),
    (experiment(traffic=[[0, 10], 5]), "traffic of experiment deep is no span in per cent", "traffic = [0, 50]"),
    (layer("retrieval", parameters=[1]), "parameters of layer retrieval must be a list of names",
     'parameters = ["top_k"]'),
    (lambda tables: tables["attributes"].update(orders="nummer"), "attribute orders is a nummer, which does not exist",
     "number"),
    # launch layers and circles
    (layer("wording", launch=True), "launch layer wording is in the domain inner: new defaults are for all traffic",
     'domain = "default"'),
    (layer("dialogue", launch=True), "domain inner is in the launch layer dialogue",
     "a normal layer: domains cut traffic"),
    (layer("dialogue", domain="inner"), "domain inner lies in itself", None),
    # testers and metrics
    (extra("overrides", experiment="rerenk", arm="control", ids=["b"]),
     "an override is for the experiment rerenk, which does not exist", "rerank"),
    (extra("overrides", experiment="rerank", arm="contrl", ids=["b"]),
     "the override of rerank sends testers to the arm contrl, which does not exist", "control"),
    (extra("overrides", experiment="rerank", arm="control", ids=["anna"]),
     "tester anna is sent to the arms treatment and control of rerank", "one of them"),
    (extra("metrics", name="x", kind="propotion", column="x"), "metric x is a propotion, which does not exist",
     "proportion"),
    (extra("metrics", name="x", kind="ratio", numerator="x"), "metric x is a ratio and has no denominator",
     'denominator = "..."'),
    (extra("metrics", name="x", kind="mean", column="x", better="up"),
     "metric x is better when up, which does not exist", "one of: higher, lower"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message", "advice"), WRONG, ids=[message[:60] for _, message, _ in WRONG])
def test_a_mistake_is_named_with_what_to_do(change, message, advice):
    """Catches: a mistake passed over in silence, or found with a traceback."""
    tables = copy.deepcopy(tomllib.loads(BASE))
    assert all_problems(tables) == []
    change(tables)
    found = all_problems(tables)
    assert message in [problem.message for problem in found]
    if advice:
        assert advice in [problem.try_next for problem in found if problem.message == message]
    with pytest.raises(LabError):
        Experiments.from_tables(tables)


def test_other_units_may_use_the_same_segments():
    """Catches: an overlap seen where each kind of unit has segments of its own."""
    tables = tomllib.loads(BASE)
    row(tables, "experiments", "deep").update(unit="session", traffic=[0, 100])
    assert all_problems(tables) == []


def test_several_mistakes_are_all_told():
    """Catches: one mistake at a time, ten times over."""
    tables = tomllib.loads(BASE)
    row(tables, "experiments", "deep").update(layer="x", traffic=[90, 20], coverage=-1)
    assert len(all_problems(tables)) >= 3
    with pytest.raises(LabError, match=r"\(and \d+ more: `validate` shows all\)"):
        Experiments.from_tables(tables)


def test_the_labs_own_file_is_valid():
    """Catches: a demo that validation would refuse."""
    assert all_problems(tomllib.loads(DEFAULT_FILE.read_text(encoding="utf-8"))) == []


ODD = st.sampled_from([
    None, True, -1, 0, 3, 1e9, float("nan"), float("inf"), "", "retrieval", "x", "a.b", [], {}, [0, 50], [[0, 10], 5],
    [1], [[]], [{}], {"min": {"min": 1}}, {"not": []}, {"name": 3}, [None], "user", "default", "inner",
])  # fmt: skip


def leaves(value, path=()):
    """The way to every value in nested tables, the tables themselves included."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(inner, (*path, key))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_two_wrong_values_are_refused_or_harmless(data):
    """Catches: a traceback for a file that somebody mistyped, or a valid-looking one that fails at the first event."""
    tables = tomllib.loads(BASE)
    for _ in range(2):
        *path, last = data.draw(st.sampled_from(sorted(leaves(tables), key=str)))
        inner = tables
        for key in path:
            inner = inner[key]
        inner[last] = copy.deepcopy(data.draw(ODD))
    try:
        experiments = Experiments.from_tables(tables)
    except LabError:
        return
    for number in range(20):
        experiments.assign({"user": f"u-{number}", "session": "s"}, {"language": "zh", "orders": number})


@pytest.mark.parametrize(("content", "message"), [
    (None, "there is no file"), (b"[layers\n", "is no TOML"), (b"\xff\xfe", "is no TOML"),
])  # fmt: skip
def test_files_that_cannot_be_read(tmp_path, content, message):
    """Catches: a traceback for a missing, broken or binary file."""
    path = tmp_path / "experiments.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LabError, match=message):
        Experiments.load(path)
