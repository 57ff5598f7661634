"""Asking before money is spent or something is removed."""

from __future__ import annotations

from typing import TextIO

from siren.errors import UsageError


def confirm(
    question: str, stdin: TextIO, stderr: TextIO, *, otherwise: str = "--dry-run to see the plan"
) -> bool:
    """Whether the user answers "yes" or "y".

    Args:
        question: What is asked.
        stdin, stderr: Where the answer comes from, and where the question goes.
        otherwise: What can be done where nobody can answer, beside --yes.

    Raises:
        UsageError: There is nobody to ask.
    """
    if not stdin.isatty():
        raise UsageError(f"{question} Nobody can answer here: add --yes to go on, or {otherwise}")
    stderr.write(f"{question} [y/N] ")
    stderr.flush()
    return stdin.readline().strip().lower() in ("y", "yes")
