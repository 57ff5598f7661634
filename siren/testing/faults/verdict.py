"""What must hold of a run after a fault: of its model, its updates and its money."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from siren.analysis.run_folder import RunFolder
from siren.money.amounts import exact
from siren.money.billing import gb_seconds
from siren.money.price_book import load_price_book
from siren.testing.faults.bills import Billed
from siren.testing.faults.rig import BATCH, RATE, ROWS, Ended, Plan
from siren.types import EpochRecord, EpochReport, RunSummary, StopReason

DONE = StopReason.LIMIT_REACHED.exit_code
"""Runs of the suite have a target that they cannot reach, and end after their epochs."""
_EXACT = ("additive", "cas")
MEANS = ("average", "sync")
"""Rules that lead to one model whoever comes first."""

Params = NDArray[np.float32]


@dataclass(frozen=True)
class Expected:
    """What a fault may do to a run, and what it must: one that leaves no trace did not happen.

    Attributes:
        whole: Every planned update must be in the model.
        answered: Every response arrived: what is settled equals what was billed.
        mixed: Functions of several memory sizes ran in one epoch: their bill is rounded up.
        ends: Exit codes of which one must come before the last one, and no other may.
        retries, throttles: Of which reports must tell, at least.
        repeated: The endpoint must have billed more deliveries than requests.
        says: A pattern of what the user must be told.
    """

    whole: bool = True
    answered: bool = True
    mixed: bool = False
    ends: frozenset[int] = frozenset()
    retries: int = 0
    throttles: int = 0
    repeated: bool = False
    says: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of a run.

    Attributes:
        injected: Faults that happened.
        unanswered: Responses of these that were dropped after the work was done.
        codes: Exit codes of the command, and of each time that it was resumed.
        told, lost: Updates that reports tell of, and of these those that the model does not contain
            (`overwrite`).
        twice: Updates that the model contains beyond once an epoch.
        throttles, retries, unfinished: As reports tell, summed over epochs.
        settled_usd: For computing, with what was charged in full because nobody knows.
        unconfirmed_usd: That part of it.
        billed_usd: The endpoint's own account, priced; one delivery of each request.
        over_usd: Spent beyond the budget and beyond reservations.
        problems: What must not be; empty.
    """

    injected: int
    unanswered: int
    codes: tuple[int, ...]
    told: int
    lost: int
    twice: float
    throttles: int
    retries: int
    unfinished: int
    settled_usd: Decimal
    unconfirmed_usd: Decimal
    billed_usd: Decimal
    over_usd: Decimal
    problems: tuple[str, ...]


def last_params(out: Path, epochs: int) -> Params:
    """The model of a run folder after its last epoch."""
    found: Params = RunFolder.open(out).read_checkpoint(epochs)[0]["params"]
    return found


def examine(
    plan: Plan,
    out: Path,
    ends: Sequence[Ended],
    expected: Expected,
    calm: Params | None,
    billed: Billed,
    injected: int,
    asked: Mapping[str, int],
    unanswered: int = 0,
) -> Verdict:
    """What became of a run.

    Args:
        plan: What it was told.
        out: Its folder.
        ends: How the command ended, each time.
        expected: What the fault may do.
        calm: The model of the same run without a fault; None where it depends on who comes first.
        billed: What the endpoint billed meanwhile.
        injected, unanswered: See `Verdict`.
        asked: Requests that the S3 server got meanwhile, by method.
    """
    folder = RunFolder.open(out)
    summary = folder.read_summary()
    unconfirmed = summary.bill.get("unconfirmed", Decimal(0))
    records = folder.events(outside_usd=unconfirmed)
    reports = [record.status.report for record in records]
    params = last_params(out, len(records))
    problems = [
        *_ends(ends, expected),
        *_traces(reports, billed, expected),
        *_updates(plan, records, expected, params, calm),
        *_account(summary, records),
        *_money(records, unconfirmed, billed, expected),
        *_requests(records, unconfirmed, billed, asked),
    ]
    return Verdict(
        injected=injected,
        unanswered=unanswered,
        codes=tuple(end.code for end in ends),
        told=sum(report.pushes for report in reports),
        lost=sum(report.updates_lost for report in reports),
        twice=_twice(plan, reports, params),
        throttles=sum(report.throttles for report in reports),
        retries=sum(report.retries for report in reports),
        unfinished=sum(report.unfinished for report in reports),
        settled_usd=_sum(record.status.bill["compute"] for record in records) + unconfirmed,
        unconfirmed_usd=unconfirmed,
        billed_usd=priced(billed.least_mb_ms),
        over_usd=_over(summary, records),
        problems=tuple(problems),
    )


def priced(mb_ms: int) -> Decimal:
    """Dollars for so many MB times milliseconds, at the first tier of the world `local`."""
    with exact():
        return gb_seconds(1, mb_ms) * load_price_book().duration_tiers("us-east-1", "x86")[0].usd


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    with exact():
        return sum(amounts, Decimal(0))


def _ends(ends: Sequence[Ended], expected: Expected) -> list[str]:
    problems = []
    if ends[-1].code != DONE:
        problems.append(f"it ended with {ends[-1].code}: {ends[-1].said}")
    if expected.ends and len(ends) == 1:
        problems.append("it ended as if nothing had happened")
    for end in ends[:-1]:
        if end.code not in expected.ends:
            problems.append(f"it ended with {end.code} before it was resumed: {end.said}")
        if end.code > 0 and end.said.count("\n") != 1:
            problems.append(f"it did not end with one sentence: {end.said}")
    if expected.says and not any(re.search(expected.says, end.said) for end in ends):
        problems.append(f"nobody is told {expected.says!r}")
    return problems


def _traces(reports: Sequence[EpochReport], billed: Billed, expected: Expected) -> list[str]:
    """A fault was noticed where it must be."""
    problems = []
    for name in ("retries", "throttles"):
        told, least = sum(getattr(report, name) for report in reports), getattr(expected, name)
        if told < least:
            problems.append(f"reports tell of {told} {name}, not of {least}")
    if expected.repeated and billed.all_mb_ms == billed.most_mb_ms:
        problems.append("no event was delivered twice")
    return problems


def _counts(params: Params) -> NDArray[np.float64]:
    """How often every row was counted, (rows,), under a rule whose updates add up."""
    return -params[:ROWS].astype(np.float64) * BATCH / RATE


def _twice(plan: Plan, reports: Sequence[EpochReport], params: Params) -> float:
    """Updates that a model contains beyond one of every row in an epoch; under `MEANS` each weighs 1/n."""
    whole = all(report.pushes == report.pushes_planned for report in reports)
    weight = plan.functions if plan.rule in MEANS and whole else 1
    return float(np.maximum(_counts(params) * weight - plan.epochs, 0.0).sum() / BATCH)


def _updates(
    plan: Plan, records: Sequence[EpochRecord], expected: Expected, params: Params, calm: Params | None
) -> list[str]:
    """Every update once at most, as many as are told, and all of them where nothing may be missing."""
    problems = []
    reports = [record.status.report for record in records]
    if len(reports) != plan.epochs:
        problems.append(f"{len(reports)} of {plan.epochs} epochs")
    if not all(np.isfinite(report.loss) for report in reports) or not np.isfinite(params).all():
        problems.append("a loss or a parameter is not finite")
    counts, twice = _counts(params), _twice(plan, reports, params)
    if twice:
        problems.append(f"{twice:g} updates were counted twice")
    told = sum(report.pushes for report in reports)
    planned = sum(report.pushes_planned for report in reports)
    contained = told - sum(report.updates_lost for report in reports)
    if plan.rule in (*_EXACT, "overwrite") and counts.sum() != contained * BATCH:
        problems.append(f"the model contains {counts.sum() / BATCH:g} updates, reports tell of {contained}")
    if told > planned or (expected.whole and told != planned):
        problems.append(f"{told} of {planned} updates")
    if expected.whole and plan.rule in _EXACT and (counts != plan.epochs).any():
        problems.append(f"rows were counted {counts.min():g} to {counts.max():g} times")
    if expected.whole and calm is not None and not _same(plan, params, calm):
        problems.append("the model differs from that of a run without a fault")
    return problems


def _same(plan: Plan, one: Params, other: Params) -> bool:
    """Whether models are equal to the bit; over Redis sums of more than two depend on their order."""
    if plan.channel == "redis" and plan.functions > 2:
        return np.array_equal(one[:ROWS], other[:ROWS]) and np.allclose(one, other, rtol=1e-5, atol=1e-6)
    return np.array_equal(one, other)


def _account(summary: RunSummary, records: Sequence[EpochRecord]) -> list[str]:
    """The summary, the events and the ledger tell one story of money, within the budget."""
    problems = []
    unconfirmed = summary.bill.get("unconfirmed", Decimal(0))
    if _sum(record.status.cost_usd for record in records) + unconfirmed != summary.cost_usd:
        problems.append("the epochs' costs do not add up to the run's")
    over_usd = _over(summary, records)
    if over_usd:
        problems.append(f"${over_usd} were spent beyond the budget of the run or the reservations of epochs")
    return problems


def _over(summary: RunSummary, records: Sequence[EpochRecord]) -> Decimal:
    """What was spent beyond the budget and beyond reservations."""
    spent = [(summary.cost_usd, summary.header.budget_usd)]
    spent += [(record.status.cost_usd, record.reserved_usd) for record in records]
    return _sum(max(Decimal(0), usd - most_usd) for usd, most_usd in spent)


def _money(
    records: Sequence[EpochRecord], unconfirmed: Decimal, billed: Billed, expected: Expected
) -> list[str]:
    """What is settled against what the endpoint billed."""
    problems = []
    usages = [record.status.report.usage for record in records]
    settled = sum(usage.billed_ms * usage.memory_mb for usage in usages)
    if _sum(record.status.bill["compute"] for record in records) != priced(settled):
        problems.append("the settled milliseconds are not priced as they should be")
    if priced(settled) + unconfirmed < priced(billed.least_mb_ms):
        problems.append(f"{settled} MB ms and ${unconfirmed} are settled, {billed} was billed")
    slack = sum(usage.memory_mb - 1 for usage in usages) if expected.mixed else 0
    equal = billed.least_mb_ms <= settled <= billed.most_mb_ms + slack
    if expected.answered and not unconfirmed and not equal:
        problems.append(f"{settled} MB ms are settled, {billed} was billed, and every answer came")
    return problems


def _requests(
    records: Sequence[EpochRecord], unconfirmed: Decimal, billed: Billed, asked: Mapping[str, int]
) -> list[str]:
    """The settled requests to S3 are those that the server got; more where a function told nothing.

    What epochs asked that were charged in full, and what a second delivery of an event did, nobody counted.
    """
    if unconfirmed or billed.all_mb_ms != billed.most_mb_ms or billed.least_mb_ms != billed.most_mb_ms:
        return []
    reports = [record.status.report for record in records]
    repeated = any(report.retries for report in reports)
    got = {
        "puts": asked.get("PUT", 0) + asked.get("POST", 0),
        "gets": asked.get("GET", 0) + asked.get("HEAD", 0),
    }
    settled = {kind: sum(getattr(report.usage, f"s3_{kind}") for report in reports) for kind in got}
    return [
        f"{settled[kind]} {kind} of S3 are settled, the server got {got[kind]}"
        for kind in got
        if settled[kind] < got[kind] or (settled[kind] != got[kind] and not repeated)
    ]
