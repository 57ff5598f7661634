"""A Sphinx extension: pages generated from Siren itself, links to the repository, formulas in MathML.

A line `<!-- siren: NAME ARGUMENT ... -->` of a page is replaced by what the generator of that name writes,
in Markdown. On a host that shows the repository the line is invisible.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

from sphinx.application import Sphinx

from siren_docs import api, commands, environments, files, links, maths, results, schema

GENERATORS: dict[str, Callable[..., str]] = {
    "api": api.modules,
    "commands": commands.commands,
    "environments": environments.cards,
    "exit-codes": commands.exit_codes,
    "machines": files.machines,
    "results": results.pages,
    "scenarios": files.scenarios,
    "workload": schema.workload,
    "worlds": files.worlds,
}

_LINE = re.compile(r"^<!-- siren: (.+?) -->$", re.MULTILINE)


def setup(app: Sphinx) -> dict[str, Any]:
    """Tells Sphinx what is here."""
    app.connect("source-read", _generate)
    app.connect("doctree-read", links.mend, priority=100)  # before Sphinx collects what is to be downloaded
    app.connect("autodoc-process-docstring", api.as_restructured_text, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", api.without_signature)
    app.connect("autodoc-skip-member", api.without_settings)
    app.connect("missing-reference", api.without_page)
    app.add_html_math_renderer("mathml", (maths.inline, None), (maths.block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _generate(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replaces the lines that name a generator."""

    def written(match: re.Match[str]) -> str:
        name, *arguments = shlex.split(match[1])
        return GENERATORS[name](*arguments)

    source[0] = _LINE.sub(written, source[0])
