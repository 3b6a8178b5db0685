"""`chat`: talk to the agents in the terminal. `ask`: one message, one answer."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from labkit.cli import Command, option
from labkit.errors import LabError
from labkit.progress import console
from stage3_agents_llmops.agent.common_options import AgentOptions, settings_of
from stage3_agents_llmops.agent.customer_service_agent import CustomerServiceAgent

BYE = ("exit", "quit", "bye", "再见")


@dataclass(frozen=True)
class ChatConfig(AgentOptions):
    """Who talks, in which conversation, to which models."""

    customer: str = option("C1001", "who is talking, one of the shop's customers")
    thread: str = option("terminal", "the conversation; the same word goes on with it")
    events: bool = option(True, "show what the agents do")


@dataclass(frozen=True)
class AskConfig(ChatConfig):
    """The same, for one message."""

    message: str = option("", "what to ask")
    thread: str = option("ask", "the conversation; the same word goes on with it")


def run_ask(config: AskConfig, preset: str) -> int:
    """Print the answer to one message.

    Raises:
        LabError: no message.
    """
    if not config.message.strip():
        raise LabError("nothing was asked", 'ask "where is my order?"')
    asyncio.run(converse(config, [config.message]))
    return 0


def run_chat(config: ChatConfig, preset: str) -> int:
    """Talk until `exit` or the end of the input."""
    console.print(f"You are {config.customer} in conversation {config.thread}. `exit` ends it.")
    asyncio.run(converse(config, None))
    return 0


async def converse(config: ChatConfig, messages: list[str] | None) -> None:
    """Messages from a list, or from the keyboard; a cut-off run is finished first."""
    async with CustomerServiceAgent.open(settings_of(config)) as agent:
        who = {"thread_id": config.thread, "customer_id": config.customer}
        if await agent.unfinished(config.thread):
            await show(agent.stream(resume=True, **who), config.events)
        while True:
            if messages is None:
                try:
                    message = await asyncio.to_thread(input, "\nyou> ")
                except EOFError:
                    return
            else:
                if not messages:
                    return
                message = messages.pop(0)
            if message.strip().lower() in BYE:
                return
            if message.strip():
                await show(agent.stream(message=message, **who), config.events)


async def show(stream: object, events: bool) -> None:
    """Print a run as it happens."""
    async with aclosing(stream) as parts:
        async for event in parts:
            line = line_of(event.type, event.data) if events else ""
            if line:
                console.print(f"  [dim]{line}[/dim]", highlight=False)
            if event.type == "end":
                console.print(f"agent> {event.data['text']}", markup=False, highlight=False)


def line_of(kind: str, data: dict) -> str:
    """An event in a few words; "" for those that are not shown."""
    if kind == "node" and data["phase"] == "end":
        return f"{data['name']} {data['ms']:.0f} ms"
    if kind == "intent":
        return f"understood {data['request']} of {data['of']}: {data['intent']} ({data['confidence']:.2f})"
    if kind == "handoff":
        return f"{data['from']} -> {data['to']}"
    if kind == "tool" and data["phase"] == "result":
        return f"{data['name']}: {data['message_code']}"
    if kind == "guardrail":
        return f"guardrail ({data['stage']}): {data['finding']} {data['action']}".replace("[", "(").replace("]", ")")
    if kind == "citation":
        return f"({data['number']}) {data['title']}"
    return ""


COMMANDS = [
    Command("chat", "talk to the agents in the terminal", ChatConfig, run_chat),
    Command("ask", 'ask "a question": one answer', AskConfig, run_ask),
]
