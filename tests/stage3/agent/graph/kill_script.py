"""Runs one conversation again and again, each time in a process that kills itself (SIGKILL) at another place.

    python kill_script.py FOLDER SHOP [fresh-keys]

Every case has its own copy of the shop. A forked child plays the conversation and dies where the case says; a second
child goes on where it stopped, as a service does after a restart; the shop is then compared with one in which nothing
died. Written to stdout as JSON. With `fresh-keys` every call of a tool gets a new key: the control that must fail.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
from pathlib import Path

from graph_stand_ins import a_customer, open_agent, writes

from data.shop import dump
from stage3_agents_llmops.agent import confirmation, run_context
from stage3_agents_llmops.agent.events import Decision
from stage3_agents_llmops.agent.settings import AgentSettings
from stage3_agents_llmops.agent.shop import Shop

CASES = {  # conversation -> (place, phase, n): a node's start or end, or the end of a write, for the n-th time
    "cancel": [
        *((name, "start", 1) for name in ("guard", "classify", "supervisor", "generate", "check", "confirm", "act")),
        *((f"order_agent:{step}", "start", 1) for step in ("lookup", "decide", "propose")),
        ("confirm", "end", 1), ("confirm", "start", 2), ("check", "end", 1), ("act", "end", 1), ("write", "done", 1),
    ],
    "return": [
        *((f"refund_agent:{step}", "start", 1) for step in ("lookup", "choose_item", "decide", "propose")),
        ("guard", "end", 2), ("act", "start", 1), ("write", "done", 1),
    ],
    "ask": [
        *((f"product_agent:{step}", "start", 1) for step in ("lookup", "retrieve", "decide")),
        ("retrieve", "start", 1), ("act", "end", 1), ("write", "done", 1),
    ],
    "complain": [
        *((f"complaint_agent:{step}", "start", 1) for step in ("lookup", "decide", "propose")),
        ("human_handoff", "start", 1), ("human_handoff", "end", 1), ("write", "done", 1), ("write", "done", 2),
    ],
}  # fmt: skip


def conversations(shop: Shop) -> tuple[str, dict[str, list]]:
    """A customer, and what they do: strings are said, True agrees to the proposal by its button."""
    customer, order, back = a_customer(shop)
    return customer, {
        "cancel": [f"cancel {order.order_id}", True, "where is it?"],
        "return": [f"return {back.order_id}, it is broken", "yes"],
        "ask": [f"an invoice for {order.order_id}", "is the gaming mouse waterproof?", "how many days do I have?"],
        "complain": ["I want to complain, the courier was rude", "I want a human"],
    }


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(case: tuple) -> None:
    """Kill this process at the n-th time that the place is reached."""
    name, phase, count = case
    left = [count]

    def reached() -> None:
        left[0] -= 1
        if left[0] == 0:
            die()

    if name == "write":
        attempt = confirmation.attempt

        def then_die(*arguments):
            result = attempt(*arguments)
            reached()
            return result

        confirmation.attempt = then_die
        return
    tell = run_context.tell

    def tell_or_die(type, **data):
        tell(type, **data)
        if type == "node" and data["name"] == name and data["phase"] == phase:
            reached()

    run_context.tell = tell_or_die


def fresh_keys() -> None:
    """Let every call of a tool have another key."""
    call_tool = confirmation.call_tool

    def with_fresh_key(shop, tool, *arguments, key, **more):
        return call_tool(shop, tool, *arguments, key=secrets.token_hex(8), **more)

    confirmation.call_tool = with_fresh_key


async def play(settings: AgentSettings, customer: str, script: list, out: Path) -> None:
    """Play the script from where the conversation is; what was answered goes to `out`, line by line."""
    answers = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    async with open_agent(settings) as agent:
        for place in range(len(answers), len(script)):
            said, run_id = script[place], f"run{place}"
            begun = out.with_suffix(f".{place}")
            call = {"thread_id": "t", "customer_id": customer, "run_id": run_id}
            if said is True:
                proposal = (await agent.snapshot("t"))["proposal"]
                key = out.with_suffix(".proposal")
                if proposal:
                    key.write_text(proposal["proposal_id"])
                call["decision"] = Decision(key.read_text(), True)
            else:
                call["message"] = said
            resume = begun.exists()
            begun.touch()
            reply = await agent.reply(**call, resume=resume)
            with out.open("a") as file:
                file.write(json.dumps({"text": reply.text, "reason": reply.reason}) + "\n")


def in_child(work) -> int:
    """Run `work` in a fork; its exit status as os.waitpid gives it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 the parent must see it
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return os.waitpid(child, 0)[1]


def run_case(folder: Path, template: Path, name: str, case: tuple | None, break_keys: bool) -> dict:
    """Play a conversation in a process that dies, and go on with it in one that does not."""
    folder.mkdir()
    shop = folder / "shop.sqlite"
    shutil.copy(template, shop)
    settings = AgentSettings(shop=shop, state_dir=folder)
    customer, scripts = conversations(Shop(shop))
    out = folder / "answers.jsonl"

    def start(armed: bool) -> int:
        def work() -> None:
            if break_keys:
                fresh_keys()
            if armed:
                arm(case)
            asyncio.run(play(settings, customer, scripts[name], out))

        return in_child(work)

    status = start(True) if case else 0
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    finished = start(False) == 0
    answers = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = [row["tool"] for row in writes(shop)]
    told = {"conversation": name, "case": case, "killed": killed, "finished": finished}
    return told | {"answers": answers, "shop": content(shop), "writes": done}


def content(shop: Path) -> str:
    """The shop without what differs between two runs of the same story: times and keys."""
    tables = dump(shop)
    for rows in tables.values():
        for row in rows:
            for name in ("at", "created_at", "decided_at", "idempotency_key", "proposal_id", "audit_id"):
                row.pop(name, None)
    return json.dumps(tables, sort_keys=True, ensure_ascii=False)


def main() -> None:
    folder, template = Path(sys.argv[1]), Path(sys.argv[2])
    break_keys = len(sys.argv) > 3
    cases = {"complain": [("write", "done", 1)]} if break_keys else CASES
    results, references = [], {}
    for name, places in cases.items():
        reference = run_case(folder / name, template, name, None, False)
        for number, case in enumerate(places):
            result = run_case(folder / f"{name}{number}", template, name, case, break_keys)
            result["same_shop"] = result.pop("shop") == reference["shop"]
            results.append(result)
        references[name] = {key: reference[key] for key in ("answers", "writes", "finished")}
    print(json.dumps({"references": references, "results": results}))


if __name__ == "__main__":
    main()
