"""Asking before money is spent or something is removed."""

from __future__ import annotations

from typing import TextIO

from siren.errors import UsageError


def confirm(question: str, stdin: TextIO, stderr: TextIO) -> bool:
    """Whether the user answers "yes" or "y".

    Raises:
        UsageError: There is nobody to ask.
    """
    if not stdin.isatty():
        raise UsageError(
            f"{question} Nobody can answer here: add --yes to go on, or --dry-run to see the plan"
        )
    stderr.write(f"{question} [y/N] ")
    stderr.flush()
    return stdin.readline().strip().lower() in ("y", "yes")
