"""The list of pages that experiments wrote."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

WRITTEN_BY_HAND = ("index", "tutorial", "own_workload", "aws")
"""Pages directly under `docs` that other lists have."""


def pages() -> str:
    """A table of contents with every page that holds results, new ones included."""
    generated = [path for path in sorted(CHECKOUT.glob("docs/*.md")) if path.stem not in WRITTEN_BY_HAND]
    experiments = [
        path
        for path in sorted(CHECKOUT.glob("experiments/**/*.md"))
        if path.name not in ("README.md", "LOG.md") and "results" not in path.parts
    ]
    found = [
        CHECKOUT / "experiments/README.md",
        *generated,
        *experiments,
        *sorted(CHECKOUT.glob("experiments/*/README.md")),
        *sorted(CHECKOUT.glob("agents/*/CARD.md")),
        CHECKOUT / "experiments/LOG.md",
    ]
    names = [f"/{path.relative_to(CHECKOUT).with_suffix('').as_posix()}" for path in found]
    return "\n".join(["```{toctree}", ":hidden:", ":caption: Results", "", *names, "```"])
