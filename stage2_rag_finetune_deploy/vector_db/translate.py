"""One filter, three query languages: SQL with parameters, Milvus' expressions, Weaviate's filter objects.

Each takes a filter that was checked (`check_filter`) and has no constant parts (`simplify`).
"""

import json
from collections.abc import Mapping
from typing import Any

from stage2_rag_finetune_deploy.vector_db.filters import And, Eq, Filter, In, Not, Or, Range, Value, push_not


def to_sql(where: Filter) -> tuple[str, list[Value]]:
    """A WHERE clause for SQLite and its parameters: columns are quoted, values never become part of the text.

    A column is called as its field. SQLite has no booleans: True is 1.
    """

    def join(parts: tuple[Filter, ...], word: str) -> tuple[str, list[Value]]:
        translated = [to_sql(part) for part in parts]
        return f" {word} ".join(f"({text})" for text, _ in translated), [v for _, values in translated for v in values]

    match where:
        case Eq(field, value):
            return f'"{field}" = ?', [value]
        case In(field, values):
            return f'"{field}" IN ({", ".join("?" * len(values))})', list(values)
        case Range(field):
            text = " AND ".join(f'"{field}" {operator} ?' for operator, _ in where.bounds)
            return text, [bound for _, bound in where.bounds]
        case And(parts):
            return join(parts, "AND")
        case Or(parts):
            return join(parts, "OR")
        case Not(part):
            text, values = to_sql(part)
            return f"NOT ({text})", values
    raise TypeError(f"not a filter: {where!r}")


# exercise: vector_db.to_milvus
def to_milvus(where: Filter, fields: Mapping[str, type]) -> str:
    """A Milvus boolean expression. Its literals are those of JSON, except that a float field wants a point or an e.

    `in` over booleans is not in the language: it becomes `==` and `or`.
    """

    def literal(field: str, value: Value) -> str:
        if isinstance(value, str):
            return json.dumps(value, ensure_ascii=False)
        if isinstance(value, bool):
            return "true" if value else "false"
        return repr(float(value)) if fields[field] is float else repr(value)

    match where:
        case Eq(field, value):
            return f"{field} == {literal(field, value)}"
        case In(field, values):
            if fields[field] is bool:
                return to_milvus(Or(*(Eq(field, value) for value in values)), fields)
            return f"{field} in [{', '.join(literal(field, value) for value in values)}]"
        case Range(field):
            return " and ".join(f"{field} {operator} {bound!r}" for operator, bound in where.bounds)
        case And(parts):
            return " and ".join(f"({to_milvus(part, fields)})" for part in parts)
        case Or(parts):
            return " or ".join(f"({to_milvus(part, fields)})" for part in parts)
        case Not(part):
            return f"not ({to_milvus(part, fields)})"
    raise TypeError(f"not a filter: {where!r}")
# end exercise


def to_weaviate(where: Filter) -> Any:
    """A filter of Weaviate's client (`weaviate.classes.query.Filter`).

    Servers before 1.33 have no `Not`: it is pushed inwards, down to `not_equal`.
    """
    from weaviate.classes.query import Filter as Weaviate

    def build(part: Filter) -> Any:
        match part:
            case Eq(field, value):
                return Weaviate.by_property(field).equal(value)
            case Not(Eq(field, value)):
                return Weaviate.by_property(field).not_equal(value)
            case In(field, values):  # contains_any knows no booleans of its own
                return Weaviate.any_of([Weaviate.by_property(field).equal(value) for value in values])
            case Not(In(field, values)):
                return Weaviate.all_of([Weaviate.by_property(field).not_equal(value) for value in values])
            case Range(field):
                property = Weaviate.by_property(field)
                named = {
                    ">=": property.greater_or_equal,
                    ">": property.greater_than,
                    "<=": property.less_or_equal,
                    "<": property.less_than,
                }
                return Weaviate.all_of([named[operator](bound) for operator, bound in part.bounds])
            case And(parts):
                return Weaviate.all_of([build(each) for each in parts])
            case Or(parts):
                return Weaviate.any_of([build(each) for each in parts])
        raise TypeError(f"not a filter: {part!r}")

    return build(push_not(where))
