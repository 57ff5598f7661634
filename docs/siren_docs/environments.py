"""The cards of the environments, from the docstrings of their classes."""

from __future__ import annotations

import inspect
import re
from importlib import import_module

from siren.simulator import ENVIRONMENTS


def cards() -> str:
    """The card of every environment that Siren registers."""
    return "\n\n".join(card(name) for name in ENVIRONMENTS)


def card(name: str) -> str:
    """The card of one environment, with its headings one level down."""
    module, _, attribute = ENVIRONMENTS[name].partition(":")
    text = inspect.getdoc(getattr(import_module(module), attribute)) or ""
    text, _, raised = text.partition("\nRaises:\n")
    text = re.sub(r"^## ", "### ", text, flags=re.MULTILINE)
    errors = re.findall(r"^ {4}(\w+): (.+(?:\n {6,}.+)*)", raised, flags=re.MULTILINE)
    listed = "\n".join(f"* `{error}`: {' '.join(why.split())}" for error, why in errors)
    made = f'```python\nenv = gymnasium.make("siren.simulator:{name}")\n```'
    return f"## {name}\n\n{made}\n\n{text}\n\n### Errors\n\n{listed}\n"
