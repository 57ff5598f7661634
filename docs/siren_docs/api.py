"""The reference of the API, by autodoc, from docstrings that are read as Markdown as well."""

from __future__ import annotations

import pkgutil
import re
from typing import Any

from docutils import nodes
from pydantic import BaseModel
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

_ALIGNED = re.compile(r"(`\w+`) {2,}(.*)")
_DESCRIBING = ("Args:", "Attributes:")
_UNFINISHED = re.compile(r"    \w+(?:, \w+)*,")
_TOGETHER = re.compile(r"    (\w+(?:, \w+)+): (.*)")


def modules(*names: str) -> str:
    """A section for every module, with what it says that it offers."""
    return "\n\n".join(f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```" for name in names)


def as_restructured_text(
    app: Sphinx, what: str, name: str, item: object, options: Any, lines: list[str]
) -> None:
    """Writes a docstring as reStructuredText where that says something else than was meant.

    Bars are absolute values and no substitutions; lists of names and meanings are aligned by spaces;
    a code block comes after a colon. Comes before napoleon.
    """
    if what in ("attribute", "data", "property"):
        lines.insert(0, "")  # else napoleon takes what stands before a colon for a type
    mended: list[str] = []
    for line in _one_by_one(lines):
        aligned = _ALIGNED.fullmatch(line)
        if aligned:
            mended += ["", f"* {aligned[1]}: {aligned[2]}"]
            continue
        if mended and mended[-1].startswith("* `") and line.startswith("   "):
            line = f"  {line.strip()}"
        if what == "module" and line.startswith("    ") and _begins_code(mended):
            mended[-2] = mended[-2] + ":"
        mended.append(
            line if line.lstrip().startswith(">>>") else re.sub(r"`s\b", r"`\\ s", line.replace("|", r"\|"))
        )
    lines[:] = mended


def _one_by_one(lines: list[str]) -> list[str]:
    """Gives what is described together, as in `rows, columns: Of the table.`, a description each."""
    apart: list[str] = []
    section, at = "", 0
    while at < len(lines):
        line, end = lines[at], at + 1
        if line and not line.startswith(" "):
            section = line
        while section in _DESCRIBING and _UNFINISHED.fullmatch(line) and end < len(lines):
            line, end = f"{line} {lines[end].strip()}", end + 1
        match = _TOGETHER.fullmatch(line)
        if match and section in _DESCRIBING:
            rest = end
            while end < len(lines) and lines[end].startswith("     "):
                end += 1
            for name in match[1].split(", "):
                apart += [f"    {name}: {match[2]}", *lines[rest:end]]
        else:
            apart.append(line)
        at = end
    return apart


def _begins_code(before: list[str]) -> bool:
    """Whether an indented line after these begins a block of code."""
    return len(before) >= 2 and not before[-1] and before[-2].endswith(":") and not before[-2].endswith("::")


def without_signature(
    app: Sphinx, what: str, name: str, item: object, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """No signature for a model of pydantic, whose validators are part of it; None leaves others alone."""
    return ("", "") if isinstance(item, type) and issubclass(item, BaseModel) else None


def without_settings(
    app: Sphinx, what: str, name: str, item: object, skip: bool, options: Any
) -> bool | None:
    """Leaves out what pydantic documents of itself; None leaves others alone."""
    return True if name == "model_config" else None


def without_page(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.TextElement | None:
    """The bare name of something in Siren that exists and has no entry; None for what does not exist."""
    target = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py" or not target.startswith("siren."):
        return None
    try:
        pkgutil.resolve_name(target)
    except (ImportError, AttributeError):
        return None
    return content
