"""The console script `siren`: `siren run ...` is `python -m siren.run ...`.

Nothing is imported but the command that was asked for. A command is a module of the package with
`main(config) -> int` and a `__name__` guard; its line in the list is the first of its docstring.
"""

from __future__ import annotations

import contextlib
import runpy
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO, get_type_hints

from siren import __version__
from siren.errors import SirenError, UnknownNameError

ORDER = (
    *("run", "plan", "rehearse", "new_workload", "profile", "report", "dash"),
    *("deploy", "teardown", "evaluate", "train_agent", "prices"),
)
"""In which order a newcomer needs the commands; others come after them."""

GUARD = 'if __name__ == "__main__":'
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")

ABOUT = """\
usage: siren COMMAND [OPTIONS]

Siren trains a machine-learning model on AWS Lambda within a dollar budget. Before every epoch it
decides how many functions of what memory size to run. The default platform is a digital twin: real
training, emulated clock and bill, no account and no money.

Start with:   siren run --budget 2.00
Then:         siren COMMAND --help
"""

ENDING = """\
`siren COMMAND ...` and `python -m siren.COMMAND ...` are the same.

options:
  -h, --help     show this list
  --version      show Siren's version
  --tyro-print-completion {bash,zsh,tcsh}
                 print a completion script; for bash:
                 siren --tyro-print-completion bash > ~/.local/share/bash-completion/completions/siren
"""


def main(
    arguments: Sequence[str] | None = None, stdout: TextIO | None = None, stderr: TextIO | None = None
) -> int:
    """Runs a command; returns its exit code.

    Args:
        arguments: What follows `siren` on the command line; that of this process by default.
        stdout: Where lists and scripts go; `sys.stdout` by default.
        stderr: Where errors go; `sys.stderr` by default.
    """
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    first = arguments[0] if arguments else "--help"
    try:
        if first in ("-h", "--help"):
            stdout.write(overview())
            return 0
        if first == "--version":
            stdout.write(f"siren {__version__}\n")
            return 0
        if first.partition("=")[0] in COMPLETION:
            return _complete(arguments, stdout)
        return _run(module_of(first), arguments[1:])
    except SirenError as error:
        print(f"siren: {error}", file=stderr)
        return error.exit_code


def commands() -> dict[str, str]:
    """One line on every command, by its name on the command line, in the order of the list."""
    found = {}
    for path in Path(__file__).parent.glob("[a-z]*.py"):
        text = path.read_text(encoding="utf-8")
        if path != Path(__file__) and GUARD in text:
            found[path.stem] = text.split('"""')[1].strip().partition("\n")[0].partition(": `")[0].rstrip(".")
    known = [name for name in ORDER if name in found]
    return {_shown(name): found[name] for name in [*known, *sorted({*found} - {*known})]}


def overview() -> str:
    """What `siren --help` prints."""
    lines = [f"  {name:14} {line}" for name, line in commands().items()]
    return "\n".join([ABOUT, "commands:", *lines, "", ENDING])


def module_of(command: str) -> str:
    """The module of a command; `train-agent` and `train_agent` are the same.

    Raises:
        UnknownNameError: There is no such command.
    """
    name, known = _shown(command), commands()
    if name not in known:
        raise UnknownNameError("command", command, known)
    return f"siren.{name.replace('-', '_')}"


def _shown(name: str) -> str:
    return name.replace("_", "-")


def _run(module: str, arguments: Sequence[str]) -> int:
    """Does what `python -m` does, processes that the command starts included."""
    before = sys.argv
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        raise
    finally:
        sys.argv = before
    return 0


def _complete(arguments: Sequence[str], stdout: TextIO) -> int:
    """Lets tyro write the completion script of all commands at once, which imports all of them."""
    import tyro

    configs: dict[str, Any] = {}
    for name in commands():
        with contextlib.suppress(SirenError):  # it needs an extra that is not installed
            configs[name] = get_type_hints(import_module(module_of(name)).main)["config"]
    options = (tyro.conf.EnumChoicesFromValues,)
    try:
        with contextlib.redirect_stdout(stdout):
            tyro.extras.subcommand_cli_from_dict(configs, prog="siren", args=[*arguments], config=options)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0
