"""A lab's command line from its configuration: one frozen dataclass a command, one option a field.

    @dataclass(frozen=True)
    class TrainConfig:
        steps: int = option(500, "optimiser steps")
        data: str = option("tiny-shakespeare", "catalog name or a UTF-8 file")

    commands = [Command("train", "train a model", TrainConfig, {"cpu": TrainConfig()}, run=train)]
    sys.exit(lab_main("python -m stage1_foundations.gpt", "The mini-GPT.", commands))

A preset is an instance of the dataclass; options given on the command line replace its fields.
"""

import argparse
import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import LabError, guarded

KINDS = {int: "a whole number", float: "a number", str: "text", Path: "a path"}


def option(default: Any, help: str, choices: Sequence[str] | None = None) -> Any:
    """A dataclass field that knows its help text and, for text, the values it may have."""
    return field(default=default, metadata={"help": help, "choices": tuple(choices) if choices else None})


@dataclass(frozen=True)
class Command:
    """One sub-command: `run(config, preset)` is called with an instance of `config` and the preset's name."""

    name: str
    help: str
    config: type
    run: Callable[[Any, str], int | None]
    presets: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def default_preset(self) -> str:
        """`cpu` where there is one, else the first; a command without presets has one, `default`."""
        return "cpu" if "cpu" in self.presets or not self.presets else next(iter(self.presets))


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word closest to `word`, or None when nothing is close."""
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.5)), None)


def require_at_least(config: Any, least: int, *names: str) -> None:
    """Refuse numbers that no run can have.

    Raises:
        LabError: one of the fields is smaller than `least`.
    """
    for name in names:
        if getattr(config, name) < least:
            flag = f"--{name.replace('_', '-')}"
            raise LabError(f"{flag} {getattr(config, name)} is not possible", f"a number from {least} on")


def lab_main(
    prog: str, description: str, commands: Sequence[Command], argv: Sequence[str] | None = None
) -> int:
    """Run a lab's command line; returns the exit code (0; 2 for bad input; 1 for a bug)."""

    def main(words: list[str]) -> int | None:
        if not words or words[0] in ("-h", "--help", "help"):
            print(overview(prog, description, commands))
            return 0
        by_name = {command.name: command for command in commands}
        if words[0] not in by_name:
            best = nearest(words[0], list(by_name))
            raise LabError(
                f"unknown command {words[0]}", f"{prog} {best}" if best else f"one of: {', '.join(by_name)}"
            )
        command = by_name[words[0]]
        config, preset = parse(prog, command, words[1:])
        return command.run(config, preset)

    return guarded(main)(argv)


def overview(prog: str, description: str, commands: Sequence[Command]) -> str:
    """What `python -m lab` alone prints."""
    width = max(len(command.name) for command in commands)
    lines = [description.strip(), "", "commands:"]
    lines += [f"  {command.name:<{width}}  {command.help}" for command in commands]
    presets = list(dict.fromkeys(name for command in commands for name in command.presets))
    if presets:
        usual = commands[0].default_preset
        lines += ["", f"presets: {', '.join(presets)}   (--preset NAME; {usual} if not given)"]
    first = commands[0]
    lines += ["", "examples:", f"  {prog} {first.name}"]
    if first.presets:
        numbers = [item for item in dataclasses.fields(first.config) if type(item.default) in (int, float)]
        extra = f" {flag(numbers[0].name)} {numbers[0].default}" if numbers else ""
        lines += [f"  {prog} {first.name} --preset {next(iter(first.presets))}{extra}"]
    lines += [f"  {prog} {first.name} --help", "", "--debug shows the traceback of an error."]
    return "\n".join(lines)


class Parser(argparse.ArgumentParser):
    """argparse that raises LabError instead of printing its usage."""

    def error(self, message: str) -> typing.NoReturn:
        message = message.removeprefix("argument ")
        raise LabError(message, f"{self.prog} --help")

    def parse_words(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse; an unknown option is an error that names the nearest known one."""
        values, unknown = self.parse_known_args(list(words))
        if unknown:
            raise _unknown(unknown[0], self)
        return values


def parse(prog: str, command: Command, words: Sequence[str]) -> tuple[Any, str]:
    """Turn the words after the command's name into a config and the preset's name. `--help` exits.

    Raises:
        LabError: unknown option or preset, wrong type, value not among the choices.
    """
    preset = _preset_of(command, words)
    base = command.presets[preset] if command.presets else command.config()
    parser = Parser(prog=f"{prog} {command.name}", description=command.help, allow_abbrev=False)
    if command.presets:
        parser.add_argument(
            "--preset", default=preset, metavar="NAME", help=f"{', '.join(command.presets)} (now: {preset})"
        )
    hints = typing.get_type_hints(command.config)
    for item in dataclasses.fields(command.config):
        _add_option(parser, item, hints[item.name], getattr(base, item.name))
    values = parser.parse_words(words)
    fields = {name: value for name, value in vars(values).items() if name != "preset" or "preset" in hints}
    return dataclasses.replace(base, **fields), preset


def flag(name: str) -> str:
    """The option for a field: `batch_size` is `--batch-size`."""
    return "--" + name.replace("_", "-")


def _preset_of(command: Command, words: Sequence[str]) -> str:
    """The preset asked for, before the other options: it decides their defaults."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--preset", nargs="?")
    name = first.parse_known_args(list(words))[0].preset if command.presets else None
    name = name or command.default_preset
    if command.presets and name not in command.presets:
        best = nearest(name, list(command.presets))
        raise LabError(f"unknown preset {name}", f"--preset {best or ', '.join(command.presets)}")
    return name


def _add_option(parser: argparse.ArgumentParser, item: dataclasses.Field, hint: Any, default: Any) -> None:
    """One field as an option whose help shows its default in the preset."""
    kind, optional = _plain_type(hint)
    now = "none" if default is None else default
    text = f"{item.metadata.get('help', '')} (now: {now})".replace("%", "%%").strip()
    if kind is bool:
        action = argparse.BooleanOptionalAction
        parser.add_argument(flag(item.name), action=action, default=default, help=text)
        return
    choices = item.metadata.get("choices")
    convert = _converter(flag(item.name), kind, optional, choices, default)
    metavar = "|".join(choices) if choices else kind.__name__.upper()
    parser.add_argument(flag(item.name), type=convert, default=default, metavar=metavar, help=text)


def _plain_type(hint: Any) -> tuple[type, bool]:
    """int | None -> (int, True); int -> (int, False)."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(inner) == 1 and len(typing.get_args(hint)) == 2:
            return _plain_type(inner[0])[0], True
    if hint is bool or hint in KINDS:
        return hint, False
    raise TypeError(f"a config field may be int, float, str, bool, Path or one of them | None, not {hint}")


def _converter(
    name: str, kind: type, optional: bool, choices: Sequence[str] | None, default: Any
) -> Callable:
    def convert(text: str) -> Any:
        if optional and text.lower() == "none":
            return None
        try:
            value = kind(text)
        except ValueError:
            example = {int: 1, float: 0.1}.get(kind) if default is None else default
            raise LabError(f"{name} wants {KINDS[kind]}, not {text!r}", f"{name} {example}") from None
        if choices and value not in choices:
            best = nearest(text, choices)
            raise LabError(
                f"{name} cannot be {text!r}", f"{name} {best or 'with one of: ' + ', '.join(choices)}"
            )
        return value

    return convert


def _unknown(word: str, parser: argparse.ArgumentParser) -> LabError:
    if not word.startswith("-"):
        return LabError(f"unexpected argument {word}", f"{parser.prog} --help")
    name = word.split("=")[0]
    best = nearest(name, [text for action in parser._actions for text in action.option_strings])
    return LabError(f"unknown option {name}", best or f"{parser.prog} --help")
