"""The filter language by itself. Each test names the bug that it catches."""

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabError
from stage2_rag_finetune_deploy.vector_db import And, Eq, Filter, In, Not, Or, Range
from stage2_rag_finetune_deploy.vector_db.filters import check_filter, evaluate, push_not, simplify
from stage2_rag_finetune_deploy.vector_db.translate import to_milvus, to_sql, to_weaviate
from tests.stage2.vector_db.conftest import FIELDS
from tests.stage2.vector_db.strategies import fields, filters

patient = settings(deadline=None)  # a busy machine is no failure


def test_evaluate_by_hand():
    """Catches: a bound on the wrong side of its number, `or` for `and`."""
    row = {"language": "en", "year": 2020, "price": 2.5, "draft": False}
    assert evaluate(Eq("language", "en") & Range("year", at_least=2020, below=2021), row)
    assert not evaluate(Range("year", above=2020), row) and evaluate(Range("year", at_most=2020), row)
    assert not evaluate(Range("price", below=2.5), row) and evaluate(Range("price"), row)
    assert evaluate(Eq("draft", True) | In("language", ["zh", "en"]), row)
    assert not evaluate(~In("language", ["zh", "en"]), row)
    assert evaluate(And(), row) and not evaluate(Or(), row) and not evaluate(In("year", []), row)


@patient
@given(where=filters, row=fields)
def test_simplify_keeps_the_meaning(where, row):
    """Catches: an `or` that a false part makes false, a `not` that is lost."""
    simple = simplify(where)
    assert (simple if isinstance(simple, bool) else evaluate(simple, row)) == evaluate(where, row)


@patient
@given(where=filters)
def test_simplify_leaves_nothing_constant(where):
    """Catches: an empty `in`, `and` or `or`, or a range without bounds, that reaches a store."""

    def every(part: Filter):
        yield part
        for inner in getattr(part, "parts", [getattr(part, "part", None)]):
            if inner is not None:
                yield from every(inner)

    simple = simplify(where)
    for part in [] if isinstance(simple, bool) else every(simple):
        assert not (isinstance(part, In) and not part.values)
        assert not (isinstance(part, Range) and not part.bounds)
        assert not (isinstance(part, And | Or) and len(part.parts) < 2)


def test_push_not_by_hand():
    """Catches: one of De Morgan's laws left out, a flipped bound that keeps its equality."""
    where = Not(And(Eq("draft", True), Range("year", at_least=5, below=9), Not(In("language", ["en"]))))
    outside = Or(Range("year", below=5), Range("year", at_least=9))
    assert push_not(where) == Or(Not(Eq("draft", True)), outside, In("language", ["en"]))


@patient
@given(where=filters, row=fields)
def test_push_not_keeps_the_meaning(where, row):
    """Catches: De Morgan with one law only, a flipped bound that keeps its equality, a double not."""
    simple = simplify(where)
    if isinstance(simple, bool):
        return
    pushed = push_not(simple)
    assert evaluate(pushed, row) == evaluate(simple, row)

    def check(part: Filter) -> None:
        assert not isinstance(part, Not) or isinstance(part.part, Eq | In)
        for inner in getattr(part, "parts", ()):
            check(inner)

    check(pushed)


@patient
@given(where=filters, rows=st.lists(fields, max_size=6))
def test_sql_means_the_same(where, rows):
    """Catches: parameters out of order, missing brackets, a value pasted into the text."""
    simple = simplify(where)
    if isinstance(simple, bool):
        return
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE t (number INTEGER, language TEXT, year INTEGER, price REAL, draft INTEGER)")
    db.executemany("INSERT INTO t VALUES (?, :language, :year, :price, :draft)".replace("?", ":number"),
                   [{**row, "number": i} for i, row in enumerate(rows)])  # fmt: skip
    clause, values = to_sql(simple)
    found = [number for (number,) in db.execute(f"SELECT number FROM t WHERE {clause} ORDER BY number", values)]
    assert found == [i for i, row in enumerate(rows) if evaluate(where, row)]


def test_milvus_expressions_by_hand():
    """Catches: quotes that end early, Python's True, a float field compared with an int's literal."""
    years = Not(Range("year", at_least=5, below=9))
    where = And(Eq("language", 'a"b\\c\n'), years, Eq("price", 2), In("draft", [True]))
    assert to_milvus(where, FIELDS) == (
        '(language == "a\\"b\\\\c\\n") and (not (year >= 5 and year < 9)) and (price == 2.0) and ((draft == true))'
    )


def weaviate_says(where, row) -> bool:
    """What a filter object of Weaviate's client means: by its own operators and values."""
    operator = str(where.operator).split(".")[-1].lower()
    if operator in ("and", "or"):
        return (all if operator == "and" else any)(weaviate_says(part, row) for part in where.filters)
    left, right = row[where.target], where.value
    return {
        "equal": left == right, "notequal": left != right,
        "greaterthan": not isinstance(left, str) and left > right,
        "greaterthanequal": not isinstance(left, str) and left >= right,
        "lessthan": not isinstance(left, str) and left < right,
        "lessthanequal": not isinstance(left, str) and left <= right,
    }[operator.replace("_", "")]  # fmt: skip


@patient
@given(where=filters, row=fields)
def test_weaviate_filters_mean_the_same(where, row):
    """Catches: a `not` that Weaviate has no word for, a bound on the wrong side."""
    simple = simplify(where)
    if not isinstance(simple, bool):
        assert weaviate_says(to_weaviate(simple), row) == evaluate(where, row)


@pytest.mark.parametrize(
    ("where", "message", "advice"),
    [
        (Eq("languge", "en"), "unknown field 'languge'", "'language'"),
        (Eq("zzzz", "en"), "unknown field 'zzzz'", "one of: language"),
        (Eq("year", "2020"), "year is int, not str", "int"),
        (Eq("year", True), "year is int, not bool", "int"),
        (Eq("draft", 1), "draft is bool, not int", "bool"),
        (Eq("price", float("nan")), "price cannot be nan", "finite"),
        (Eq("year", 2**53 + 1), "beyond 2\\^53", "text"),
        (Range("language", above=3), "Range over language", "int and float"),
        (Range("year", above="3"), "has the bound '3'", "finite"),
        (Range("year", below=float("inf")), "has the bound inf", "finite"),
        (In("language", ["en", 3]), "language is str, not int", "str"),
        (And(Eq("draft", True), "price > 3"), "not a filter", "Eq, In"),
        (Eq("language", "\ud800"), "surrogate", "UTF-8"),
    ],
)
def test_a_filter_that_no_store_could_answer(where, message, advice):
    """Catches: an error that comes from deep inside one store, and another one from each."""
    with pytest.raises(LabError, match=message) as caught:
        check_filter(where, FIELDS)
    assert advice in caught.value.try_next


def test_a_filter_that_is_too_deep():
    """Catches: a RecursionError with a thousand lines."""
    where = Eq("draft", True)
    for _ in range(2000):
        where = Not(where)
    with pytest.raises(LabError, match="deep"):
        check_filter(where, FIELDS)
