"""A scripted customer as TOML.

    [[customers]]
    name = "cancels_before_shipping"
    theme = "happy"
    find.order = { status = "placed", items = 1 }
    never = ["{stranger.address}"]

    [[customers.steps]]
    say = ["Please cancel {order.id}.", "I don't want {order.id} any more, cancel it."]
    about = "order"
    does = [{ tool = "cancel_order" }]
    facts = ["money {order.total}"]

A step is something the customer comes to say; whatever the agent asks in between is answered by rules (customer.py).
Values in braces are found in the shop when the conversation begins (shop_values.py): no script knows an order number.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from labkit.errors import LabError

SENSITIVE = ("cancel_order", "change_address", "return_item", "exchange_item")  # what the customer confirms first
TOOLS = (*SENSITIVE, "send_invoice", "open_complaint", "request_human")
KINDS = ("order", "nobody", "product", "address", "customer")  # of what is looked for
REPLIES = ("yes", "no", "instead")
FORMS = ("any", "spoken")
PLACEHOLDER = re.compile(r"\{([a-z_0-9]+)(\.[a-z_]+)?\}")


@dataclass(frozen=True)
class Action:
    """A write that must have happened. `about` names an order of `find`; `item` counts its items from 0."""

    tool: str
    about: str = ""
    item: int = 0
    reason: tuple[str, ...] = ()  # codes that are right; empty: any
    address: str = ""  # names an address of `find`


@dataclass(frozen=True)
class Step:
    """Something that the customer says, and what must come of it.

    Args:
        say: alternative wordings.
        parts: instead of `say`: several requests, each with its wordings, said in one message in any order.
        about: the order that is meant when the agent asks for an order number, a product or a reason.
        does: what the shop must have done; what is sensitive is confirmed first.
        reply: to a proposal that fits: yes, no, or `instead`, which says something else.
        tempts: tools whose proposals the customer approves although the shop must refuse: who wants a refund against
            the rules does not say no to one.
        facts: what the answers must say from here on (facts.py).
        cites: an answer from here on must rest on a passage.
        leaves: the customer goes before this step, and the service starts again.
        leaves_at_proposal: the customer goes with the proposal open, and answers it afterwards.
    """

    say: tuple[str, ...] = ()
    parts: tuple[tuple[str, ...], ...] = ()
    about: str = ""
    does: tuple[Action, ...] = ()
    proposes: str = ""  # the tool that may be proposed where reply is no or instead
    reply: str = "yes"
    instead: tuple[str, ...] = ()
    tempts: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    cites: bool = False
    leaves: bool = False
    leaves_at_proposal: bool = False


@dataclass(frozen=True)
class Script:
    """A customer: what they know, what they want, what they must never be told."""

    name: str
    theme: str
    language: str
    find: Mapping[str, Mapping[str, Any]]
    steps: tuple[Step, ...]
    never: tuple[str, ...] = ()
    knows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # slot -> how it is answered, where it differs
    may_open: tuple[str, ...] = ()  # kinds of tickets that may be opened without being asked for
    form: str = "any"  # how order numbers are written
    typos: bool = True
    core: bool = True  # False: only where there is time for all

    @property
    def restarts(self) -> bool:
        """Whether the service must be started again in the middle."""
        return any(step.leaves or step.leaves_at_proposal for step in self.steps)


def load_scripts(folder: Path) -> list[Script]:
    """Every script of `<folder>/<language>/*.toml` or `<folder>/<language>.toml`, checked.

    Raises:
        LabError: no script, not TOML, or a script that names what it does not find; the message says where.
    """
    scripts = []
    for path in sorted(folder.glob("**/*.toml")):
        language = path.relative_to(folder).parts[0].removesuffix(".toml")
        try:
            entries = tomllib.loads(path.read_text(encoding="utf-8"))["customers"]
            scripts += [_script(entry, language) for entry in entries]
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
            raise LabError(f"{path.name}: {error}", f"correct {path.name}") from None
    names = [script.name for script in scripts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not scripts or twice:
        problem = f"{', '.join(twice)} comes twice" if twice else "no scripts"
        raise LabError(f"{folder}: {problem}", "every script has a name of its own")
    return scripts


def scripts_sha256(scripts: Iterable[Script]) -> str:
    """The hash of a set of scripts: figures of different sets cannot be compared."""
    text = json.dumps([repr(script) for script in sorted(scripts, key=lambda script: script.name)])
    return hashlib.sha256(text.encode()).hexdigest()


def _script(entry: Mapping[str, Any], language: str) -> Script:
    steps = tuple(_step(entry["name"], step) for step in entry["steps"])
    tuples = {name: tuple(entry.get(name, ())) for name in ("never", "may_open")}
    tuples |= {"steps": steps, "language": language}
    tuples["knows"] = {slot: tuple(wordings) for slot, wordings in entry.get("knows", {}).items()}
    script = Script(**{"find": {}} | dict(entry) | tuples)
    for name, condition in script.find.items():
        _require(condition.get("kind", "order") in KINDS, script.name, f"{name} is of no known kind")
    for step in script.steps:
        for name in (step.about, *(action.about for action in step.does), *(action.address for action in step.does)):
            _require(not name or name in script.find, script.name, f"{name} is not found in the shop")
    for text in _texts(script):
        for name, _ in PLACEHOLDER.findall(text):
            _require(name in script.find or name == "me", script.name, f"{{{name}}} is not found in the shop")
    _require(script.form in FORMS, script.name, f"form {script.form}")
    return script


def _step(name: str, entry: Mapping[str, Any]) -> Step:
    known = {item.name for item in fields(Step)}
    _require(entry.keys() <= known, name, f"a step knows no {', '.join(sorted(entry.keys() - known))}")
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    about = entry.get("about", "")
    plain["does"] = tuple(
        Action(**{"about": about} | action | {"reason": tuple(action.get("reason", ()))})
        for action in entry.get("does", ())
    )
    plain["parts"] = tuple(tuple(part) for part in entry.get("parts", ()))
    step = Step(**plain)
    _require(bool(step.say) != bool(step.parts), name, "a step has either `say` or `parts`")
    _require(step.reply in REPLIES and (step.reply == "instead") == bool(step.instead), name, f"reply {step.reply}")
    _require(all(action.tool in TOOLS for action in step.does), name, "a tool that the shop does not have")
    _require(all(tool in SENSITIVE for tool in step.tempts), name, "`tempts` names a tool that nobody confirms")
    _require(not (step.does and step.reply != "yes"), name, "what is declined cannot be expected")
    _require(step.reply == "yes" or step.proposes in SENSITIVE, name, "`proposes` must name what is declined")
    return step


def _texts(script: Script) -> Sequence[str]:
    texts = [*script.never, *(wording for wordings in script.knows.values() for wording in wordings)]
    for step in script.steps:
        texts += [*step.say, *step.instead, *step.facts, *(wording for part in step.parts for wording in part)]
    return texts


def _require(condition: bool, name: str, message: str) -> None:
    if not condition:
        raise ValueError(f"{name}: {message}")
