"""The reference of the command line, from the parsers that the commands use."""

from __future__ import annotations

import argparse
import re
import textwrap
import warnings
from importlib import import_module
from typing import Any, get_type_hints

import tyro

from siren import cli
from siren.types import StopReason

ENDS = {
    StopReason.TARGET_REACHED: "the held-out loss is at the target",
    StopReason.INTERNAL_ERROR: "a defect in Siren: please report it",
    StopReason.USAGE_ERROR: "wrong input, or a model that breaks its contract; nothing was spent on it",
    StopReason.BUDGET_EXHAUSTED: "no useful epoch fits what is left; the best model is kept",
    StopReason.PLATFORM_FAILURE: "the platform or the disk failed; resume when it works again",
    StopReason.DIVERGED: "the loss exploded; the best model is kept",
    StopReason.LIMIT_REACHED: "`--max-epochs` or `--max-time`; resume with a larger one",
    StopReason.INTERRUPTED: "Ctrl-C or SIGTERM; resume",
}
"""What each end of a run means to its user."""

_DEFAULT = re.compile(r"\s*\(default: (.*)\)$", re.DOTALL)


def commands() -> str:
    """A section for every command of the console script: what it does, and its options."""
    return "\n".join(_section(name, line) for name, line in cli.commands().items())


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command."""
    main = import_module(cli.module_of(command)).main
    config = get_type_hints(main)["config"]
    options = (tyro.conf.EnumChoicesFromValues,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # tyro has no other way to a parser yet
        return tyro.extras.get_parser(config, prog=f"siren {command}", config=options)


def exit_codes() -> str:
    """The exit codes of `siren run`."""
    rows = [f"| {reason.exit_code} | `{reason.value}` | {ENDS[reason]} |" for reason in StopReason]
    return "\n".join(["| exit code | `stop_reason` | means |", "|---|---|---|", *rows])


def _section(name: str, line: str) -> str:
    parser = parser_of(name)
    actions = [a for a in parser._actions if a.help != argparse.SUPPRESS]
    positional = "".join(f" {_value(a)}" for a in actions if not a.option_strings)
    usage = f"siren {name}{positional} [OPTIONS]"
    entries = "\n".join(_entry(action) for action in actions)
    about = _plain(textwrap.dedent(parser.description or ""))
    return f"## siren {name}\n\n*{line}.*\n\n```console\n$ {usage}\n```\n\n{about}\n\n{entries}\n"


def _entry(action: argparse.Action) -> str:
    """A definition: the option, and what it does."""
    value = _value(action)
    names = ", ".join(f"`{name}{' ' + value if value else ''}`" for name in action.option_strings)
    text, default = action.help or "", ""
    match = _DEFAULT.search(text)
    if match:
        text, default = text[: match.start()], match[1]
    shown = f" Default: `{default}`." if default not in ("", "None", "False") else ""
    return f"{names or f'`{value}`'}\n: {_plain(' '.join(text.split()))}{shown}\n"


def _value(action: argparse.Action) -> str:
    """What an option takes, as its help shows it; nothing for a switch."""
    if action.nargs == 0:
        return ""
    metavar: Any = action.metavar
    if isinstance(metavar, tuple):
        metavar = " ".join(metavar)
    if metavar is None:
        metavar = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    return re.sub(r"\{None,", "{", str(metavar)).removeprefix("None|")


def _plain(text: str) -> str:
    """Text in which nothing but code means anything to Markdown; options are code."""
    parts = re.split(r"(`[^`]*`)", re.sub(r"(?<![`\w-])--[a-z][a-z-]*\b", r"`\g<0>`", text))
    return "".join(part if part.startswith("`") else re.sub(r"([<*_|\[])", r"\\\1", part) for part in parts)
