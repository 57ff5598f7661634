"""A page as one HTML text: a document and what draws it, with no request to anywhere.

The page allows itself nothing but its own style and script, by their hashes (Content Security
Policy Level 3, section 6.7.3, w3.org/TR/CSP3); what a run's files say is data, never markup.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from siren.analysis import records
from siren.errors import SirenError

ASSETS = Path(__file__).parent / "assets"
STYLE = "page.css"
SCRIPTS = ("dom.js", "axes.js", "marks.js", "plot.js", "amounts.js", "run.js", "runs.js", "live.js")
"""One script, in this order."""


def page(document: Mapping[str, Any], *, live: bool = False) -> str:
    """The HTML of a document.

    Args:
        document: Of a run or of a list of runs; JSON without NaN.
        live: Whether the page asks the server that it came from for what is new, at `events`.
    """
    parts = _assets()
    server = "'self'" if live else "'none'"
    data = records.to_text(document)
    for character in "<>&":  # no text in it can end the element that holds it
        data = data.replace(character, f"\\u{ord(character):04x}")
    return Template(parts["page.html"]).substitute(
        title=html.escape(f"{document['heading']} – Siren"),
        summary=html.escape(document["lede"]),
        policy="; ".join(
            (
                "default-src 'none'",
                "img-src data:",
                f"style-src {_hash(parts['style'])}",
                f"script-src {_hash(parts['script'])}",
                f"connect-src {server}",
                "base-uri 'none'",
                "form-action 'none'",
            )
        ),
        style=parts["style"],
        script=parts["script"],
        data=data,
        events="events" if live else "",
    )


@functools.cache
def _assets() -> dict[str, str]:
    """The template, the style and the script.

    Raises:
        SirenError: The installation is incomplete.
    """
    try:
        texts = {name: (ASSETS / name).read_text("utf-8") for name in ("page.html", STYLE, *SCRIPTS)}
    except OSError as error:
        raise SirenError(f"{error.filename} cannot be read: install siren-scheduler again") from error
    script = "\n".join(texts[name] for name in SCRIPTS)
    return {
        "page.html": texts["page.html"],
        "style": f"\n{texts[STYLE]}",
        "script": f'\n"use strict";\n{{\n{script}\n}}\n',
    }


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
