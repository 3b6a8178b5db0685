"""A filter over a record's fields, as objects: built by code, checked once, translated for each store.

    where = And(Eq("language", "en"), Range("year", at_least=2020), Not(In("source", ["draft.md"])))
    where = Eq("language", "en") & Range("year", at_least=2020) & ~In("source", ["draft.md"])    # the same

Strings pasted into a query language are how injection happens; objects cannot be misquoted. Every field of a record
has a value of its declared type, so a filter is true or false and never "unknown", in every store.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from labkit.cli import nearest
from labkit.errors import LabError

Value = str | int | float | bool
TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
LARGEST_INT = 2**53  # beyond it a store that keeps numbers as float64 (Weaviate, JSON) loses the last digit
DEEPEST = 40  # nested And, Or and Not; the stores' own parsers give up somewhere above


class Filter:
    """What all expressions share: `&`, `|` and `~`."""

    def __and__(self, other: "Filter") -> "And":
        return And(self, other)

    def __or__(self, other: "Filter") -> "Or":
        return Or(self, other)

    def __invert__(self) -> "Not":
        return Not(self)


@dataclass(frozen=True)
class Eq(Filter):
    """The field has this value."""

    field: str
    value: Value


@dataclass(frozen=True)
class In(Filter):
    """The field has one of these values; no values match nothing (a user who may read nothing sees nothing)."""

    field: str
    values: Sequence[Value]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))


@dataclass(frozen=True)
class Range(Filter):
    """The number lies between bounds: `at_least` and `at_most` belong to it, `above` and `below` do not.

    For dates, store numbers that sort (20240131, or seconds).
    """

    field: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    @property
    def bounds(self) -> tuple[tuple[str, float], ...]:
        """The bounds that are given, as (operator, number)."""
        every = ((">=", self.at_least), (">", self.above), ("<=", self.at_most), ("<", self.below))
        return tuple((operator, bound) for operator, bound in every if bound is not None)


@dataclass(frozen=True, init=False)
class And(Filter):
    """All parts are true; true when there are none."""

    parts: tuple[Filter, ...]

    def __init__(self, *parts: Filter) -> None:
        object.__setattr__(self, "parts", parts)


@dataclass(frozen=True, init=False)
class Or(Filter):
    """At least one part is true; false when there are none."""

    parts: tuple[Filter, ...]

    def __init__(self, *parts: Filter) -> None:
        object.__setattr__(self, "parts", parts)


@dataclass(frozen=True)
class Not(Filter):
    """The part is false."""

    part: Filter


def leaves(where: Filter) -> Iterator[Eq | In | Range]:
    """The comparisons of an expression."""
    if isinstance(where, And | Or):
        for part in where.parts:
            yield from leaves(part)
    elif isinstance(where, Not):
        yield from leaves(where.part)
    else:
        yield where


# exercise: vector_db.evaluate
def evaluate(where: Filter, fields: Mapping[str, Value]) -> bool:
    """Whether a record with these fields passes: the meaning of the language, and the oracle of its translations."""
    compare = {
        ">=": lambda value, bound: value >= bound,
        ">": lambda value, bound: value > bound,
        "<=": lambda value, bound: value <= bound,
        "<": lambda value, bound: value < bound,
    }
    match where:
        case Eq(field, value):
            return fields[field] == value
        case In(field, values):
            return fields[field] in values
        case Range(field):
            return all(compare[operator](fields[field], bound) for operator, bound in where.bounds)
        case And(parts):
            return all(evaluate(part, fields) for part in parts)
        case Or(parts):
            return any(evaluate(part, fields) for part in parts)
        case Not(part):
            return not evaluate(part, fields)
    raise TypeError(f"not a filter: {where!r}")
# end exercise


def simplify(where: Filter) -> Filter | bool:
    """The same filter without its constant parts; True or False when nothing else is left.

    Stores differ on `field in []` and on an empty `and`; after this step they never see one.
    """
    match where:
        case In(_, values) if not values:
            return False
        case Range() if not where.bounds:
            return True
        case Not(part):
            inner = simplify(part)
            return not inner if isinstance(inner, bool) else Not(inner)
        case And(parts) | Or(parts):
            absorbing = isinstance(where, Or)  # True decides an Or, False decides an And
            kept = [simplify(part) for part in parts]
            if absorbing in [part for part in kept if isinstance(part, bool)]:
                return absorbing
            rest = [part for part in kept if not isinstance(part, bool)]
            return not absorbing if not rest else rest[0] if len(rest) == 1 else type(where)(*rest)
    return where


# exercise: vector_db.push_not
def push_not(where: Filter, negate: bool = False) -> Filter:
    """The same filter with `Not` only around `Eq` and `In` (De Morgan): for stores whose language has no general `not`.

    Args:
        where: not constant (see `simplify`).
        negate: return the opposite of `where` instead.
    """
    match where:
        case Not(part):
            return push_not(part, not negate)
        case And(parts) | Or(parts):
            opposite = Or if isinstance(where, And) else And
            return (opposite if negate else type(where))(*(push_not(part, negate) for part in parts))
        case Range(field) if negate:
            outside = {">=": "below", ">": "at_most", "<=": "above", "<": "at_least"}
            flipped = [Range(field, **{outside[operator]: bound}) for operator, bound in where.bounds]
            return flipped[0] if len(flipped) == 1 else Or(*flipped)
    return Not(where) if negate else where
# end exercise


def check_filter(where: Filter, fields: Mapping[str, type], depth: int = 0) -> None:
    """Refuse what no store could answer.

    Raises:
        LabError: an unknown field, a value of another type than the field's, a range over text, a NaN, too deep.
    """
    if depth > DEEPEST:
        raise LabError(f"the filter is nested more than {DEEPEST} deep", "In(field, values) instead of many Or")
    match where:
        case And(parts) | Or(parts):
            for part in parts:
                check_filter(part, fields, depth + 1)
        case Not(part):
            check_filter(part, fields, depth + 1)
        case Eq(field, value):
            check_value(field, value, fields)
        case In(field, values):
            check_field(field, fields)
            for value in values:
                check_value(field, value, fields)
        case Range(field):
            if check_field(field, fields) not in (int, float):
                raise LabError(f"Range over {field}, which is {fields[field].__name__}", "Range is for int and float")
            for _, bound in where.bounds:
                if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
                    raise LabError(f"Range({field!r}) has the bound {bound!r}", "a finite number")
        case _:
            raise LabError(f"not a filter: {where!r}"[:200], "Eq, In, Range, And, Or or Not")


def check_field(name: str, fields: Mapping[str, type]) -> type:
    """The field's type; an unknown name is an error that says which one is close."""
    if name not in fields:
        known = ", ".join(fields) or "this collection has no fields"
        best = nearest(str(name), list(fields))
        raise LabError(f"unknown field {name!r} in a filter", f"{best!r}" if best else f"one of: {known}")
    return fields[name]


def check_value(name: str, value: Value, fields: Mapping[str, type]) -> None:
    """Whether a field may hold the value: right type, finite, an int that every store keeps exactly, clean text."""
    wanted = check_field(name, fields)
    right = type(value) is wanted or (wanted is float and type(value) is int)  # bool is not an int here
    if not right:
        raise LabError(f"{name} is {wanted.__name__}, not {type(value).__name__} ({value!r})"[:200],
                       f"a value of type {wanted.__name__}")  # fmt: skip
    if isinstance(value, float) and not math.isfinite(value):
        raise LabError(f"{name} cannot be {value}", "a finite number")
    if wanted in (int, float) and isinstance(value, int) and abs(value) > LARGEST_INT:
        raise LabError(f"{name} = {value} is beyond 2^53", "keep such numbers as text")
    if isinstance(value, str):
        check_text(name, value)


def check_text(what: str, text: str) -> None:
    """Refuse what UTF-8, or a C string in one of the stores, cannot hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise LabError(f"{what} holds half a surrogate pair: {text!r}"[:200], "decode the file as UTF-8") from None
    if "\0" in text:
        raise LabError(f"{what} holds a NUL character", "text.replace('\\0', '')")
