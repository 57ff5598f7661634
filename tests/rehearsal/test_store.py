"""Rehearsals are kept, found again for the same job only, and never trusted if damaged."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal
from pathlib import Path

import pytest

from siren.errors import RunFolderError
from siren.policies.reference import Reference
from siren.rehearsal.rehearse import Rehearsal
from siren.rehearsal.search import linear
from siren.rehearsal.selection import Standing
from siren.rehearsal.show import summary_line
from siren.rehearsal.stage import Candidate
from siren.rehearsal.store import Store
from siren.types import Action

REFERENCE = Reference(8, 1769, 30.1, 0.0123)
FIXED = Candidate("fixed:8x1769", action=Action(8, 1769))
FOUND = Rehearsal(
    choice=linear("search", [0.1, -0.2, 0.3, 1 / 3, 0.0, 0.5, 0.25, -1.0], REFERENCE),
    why="because",
    reference=REFERENCE,
    standings=(
        Standing(FIXED, 8, 7, 31.0, 29.0, 33.5, 0.0123, 34.0),
        Standing(FIXED, 0, 0, None, None, None, 0.0123, 34.0),
    ),
    ladder=((1, 0), (8, 9)),
    share=0.25,
    target_loss=0.5,
    episodes=40,
    curves=11,
    wall_s=18.0,
)
JOB = {"workload": {"title": "x"}, "world": {"name": "y"}}
AGENTS = {"default-2026": "0123"}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SIREN_CACHE", str(tmp_path / "cache"))


def store(job=JOB, budget: str = "2.00", agents=AGENTS) -> Store:
    return Store("tiny", job, Decimal(budget), agents)


def test_what_was_kept_is_found_to_the_last_digit():
    assert store().load(20.0) is None
    store().save(FOUND)
    assert store().load(20.0) == FOUND
    assert store(budget="2").load(20.0) == FOUND


def test_another_job_budget_or_agent_is_another_rehearsal():
    store().save(FOUND)
    assert store(job={**JOB, "world": {"name": "z"}}).load(20.0) is None
    assert store(budget="2.01").load(20.0) is None
    assert store(agents={"default-2026": "4567"}).load(20.0) is None
    assert store(agents={}).load(20.0) is None


def test_a_much_longer_rehearsal_is_worth_doing():
    store().save(FOUND)
    assert store().load(36.0) == FOUND
    assert store().load(36.1) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "null",
        lambda text: text.replace('"wall_s"', '"wall"'),
        lambda text: text.replace("0.25", '"much"'),
        lambda text: "\x00" * 100,
    ],
)
def test_a_damaged_file_is_as_good_as_none(damage):
    store().save(FOUND)
    path = store().path
    path.write_text(damage(path.read_text()))
    assert store().load(20.0) is None
    store().save(FOUND)
    assert store().load(20.0) == FOUND


def test_a_folder_that_cannot_be_written_loses_the_rehearsal_only(tmp_path):
    (tmp_path / "cache").write_text("a file")
    store().save(FOUND)
    assert store().load(20.0) is None


def test_the_line_tells_what_the_run_uses():
    text = summary_line(FOUND, FOUND.choice, known=True)
    assert (
        text == "rehearsed 40 episodes and 11 curves of 25% of the samples earlier, in 18 s: search, because"
    )
    whole = dataclasses.replace(FOUND, share=1.0)
    own = Candidate("agents/mine", agent="agents/mine", reference=REFERENCE)
    text = summary_line(whole, own)
    assert text == "rehearsed 40 episodes and 11 curves in 18 s: agents/mine, as you wish, relative to 8x1769"


def as_config_reads(data: dict) -> dict:
    """Numbers under a key that ends in `_usd` are `Decimal` in a run's config."""
    return json.loads(json.dumps(data), object_pairs_hook=lambda pairs: {
        key: Decimal(repr(value)) if key.endswith("_usd") else value for key, value in pairs
    })  # fmt: skip


@pytest.mark.parametrize("candidate", [FIXED, FOUND.choice, Candidate("a", agent="a", reference=REFERENCE)])
def test_a_choice_is_read_back_from_a_config(candidate):
    assert Candidate.from_json(as_config_reads(candidate.to_json())) == candidate


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": "x"},
        {"name": "x", "action": {"functions": "many", "memory_mb": 1}},
        {"name": "x", "weights": [[0.0], [0.0, 1.0]]},
        {"name": "x", "weights": [[0.0, 1.0]]},
        {"name": "x", "weights": [[]]},
        {"name": "x", "weights": [["nan", 0.0], [0.0, 0.0]]},
        {"name": "x", "agent": "a", "reference": {"functions": 1}},
    ],
)
def test_a_damaged_choice_is_told(data):
    with pytest.raises(RunFolderError, match=r"the choice in config.json is damaged: start a new run"):
        Candidate.from_json(data)
