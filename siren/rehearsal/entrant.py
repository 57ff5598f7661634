"""Rehearsed policies in an evaluation: every case is rehearsed once, for some seconds of one core's time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

from siren.errors import UsageError
from siren.evaluation.case import Case
from siren.evaluation.entrants import Kind
from siren.evaluation.jobs import TWIN, JobInTwin
from siren.policies import Policy
from siren.rehearsal.rehearse import Rehearsal, rehearse
from siren.rehearsal.stage import Stage
from siren.rehearsal.store import from_json, to_json
from siren.worlds import World

SECONDS = 20.0
"""What `rehearsed` alone means."""

CODE = ("rehearsal", "policies")
"""Parts of the package that decide what is chosen."""


def _seconds(argument: str) -> float:
    try:
        seconds = float(argument) if argument else SECONDS
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"policy 'rehearsed:{argument}': give the seconds of a rehearsal, e.g. rehearsed:20")
    return seconds


def _check(argument: str, worlds: Iterable[World]) -> None:
    _seconds(argument)


def rehearsed_case(case: Case, seconds: float) -> Rehearsal:
    """What a rehearsal of a case finds, for so many seconds of one core's time; kept for next time."""
    job = case.job
    assert isinstance(job, JobInTwin)

    def find() -> dict[str, Any]:
        stage = Stage(job.workload, job.costing, clock=time.process_time)
        target = job.training.target_loss
        return to_json(rehearse(stage, None, case.budget_usd, seconds, target_loss=target))

    return from_json(case.chosen(f"rehearsed:{seconds:g}", find, CODE))


def _rehearsed(case: Case, argument: str) -> Policy:
    return rehearsed_case(case, _seconds(argument)).choice.policy()


REHEARSED = Kind(_rehearsed, check=_check, platforms=(TWIN,))
"""The choice of a rehearsal, `rehearsed:SECONDS`."""
