"""Whole runs of `--platform local` through faults: a right model, every update once, an exact bill.

One of each fault; every fault under every rule: `python experiments/faults.py`, docs/faults.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from siren.analysis.run_folder import RunFolder
from siren.platforms.endpoint import sweep
from siren.testing.faults import scenarios, verdict
from siren.testing.faults.bills import Billed, BillReader
from siren.testing.faults.rig import BATCH, RATE, Plan, Rig, open_rig, processes_with, temp_of
from siren.testing.faults.scenarios import PAIRS, SCENARIOS, Scenario, Suite, function_dies
from siren.testing.faults.verdict import DONE, Expected, Verdict, examine, last_params, priced

ADDITIVE, CAS, OVERWRITE = Plan("additive", "redis"), Plan("cas", "s3"), Plan("overwrite", "s3")
SYNC, AVERAGE = Plan("sync", "s3"), Plan("average", "redis")
KILLS = scenarios.KILLS
AS_USUAL = Expected()
LONGEST_MB_MS = 1769 * (Plan.timeout_s + 10) * 1000
"""What one invocation is billed at most: its timeout, and 10 s of initialisation."""

ONE_OF_EACH: list[tuple[Scenario, Plan]] = [
    (function_dies("after put", 1), CAS),
    (function_dies("after redis", 7), ADDITIVE),
    (function_dies("before gradient", 2, functions=2), SYNC),
    (scenarios.HANG, ADDITIVE),
    (scenarios.MEMORY, ADDITIVE),
    (scenarios.THROTTLED, OVERWRITE),
    (scenarios.ERROR_500, OVERWRITE),
    (scenarios.LOST, ADDITIVE),
    (scenarios.ALL_LOST, AVERAGE),
    (scenarios.DUPLICATED, CAS),
    (scenarios.SLOW_DOWN, CAS),
    (scenarios.INTERNAL_DONE, SYNC),
    (scenarios.CUT, SYNC),
    (scenarios.SLOW, Plan("staleness", "redis")),
    (scenarios.DAMAGED[2], OVERWRITE),
    (scenarios.EMPTIED, ADDITIVE),
    (KILLS[1], ADDITIVE),
    (KILLS[2], CAS),
    (KILLS[4], AVERAGE),
    (KILLS[6], ADDITIVE),
]
SEEN: dict[str, Callable[[Verdict], bool]] = {
    scenarios.LOST.name: lambda found: (
        (found.retries, found.unanswered) == (1, 1)
        and found.settled_usd > priced(LONGEST_MB_MS) > found.billed_usd
    ),
    scenarios.ALL_LOST.name: lambda found: found.unanswered > 1 and found.unconfirmed_usd > 0,
}
"""What can be seen of a fault in a run's bill, beside what `Expected` asks of every run."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("rig")


@pytest.fixture(scope="module")
def rig(folder) -> Iterator[Rig]:
    with open_rig(folder) as rig:
        groups = json.loads((rig.endpoint.root / sweep.RECORD).read_text())["groups"]
        yield rig
    assert processes_with(str(folder)) == []
    assert list(temp_of(folder).iterdir()) == []
    assert not any(Path(group).exists() for group in groups)


@pytest.fixture(scope="module")
def suite(rig, folder) -> Suite:
    (folder / "runs").mkdir()
    return Suite(rig, folder / "runs")


@pytest.fixture(autouse=True)
def no_faults(request) -> Iterator[None]:
    """No test meets the faults of another."""
    yield
    if "rig" in request.fixturenames:
        request.getfixturevalue("rig").clear()


@pytest.mark.parametrize(
    ("scenario", "plan"),
    ONE_OF_EACH,
    ids=[f"{scenario.name}-{plan.rule}-{plan.channel}" for scenario, plan in ONE_OF_EACH],
)
def test_a_run_survives(suite, scenario, plan):
    found = suite.play(scenario, plan)
    assert found.problems == ()
    assert found.injected > 0
    assert found.codes[-1] == DONE
    assert SEEN.get(scenario.name, lambda found: True)(found), found


def test_no_file_of_a_run_or_a_server_holds_the_secret(rig, suite):
    suite.play(scenarios.DELAYED, ADDITIVE)
    assert rig.secrets_written(*suite) == []
    marked = rig.folder / "marked"
    marked.write_text(rig.grounds.backend.credentials[1])
    assert rig.secrets_written(marked) == [marked]


def test_the_examiner_finds_what_is_wrong(rig, folder):
    """Its verdicts are worth something: each tampering is found."""
    out, plan = folder / "examined", replace(CAS, seed=5)
    rig.settle_down()
    rig.bills.since()
    rig.store.seen.clear()
    ended = rig.run(plan, out)
    rig.settle_down()
    billed, params, asked = rig.bills.since(), last_params(out, plan.epochs), dict(rig.store.seen)
    assert billed.invocations == 4

    def problems(plan=plan, ends=(ended,), expected=AS_USUAL, calm=params, billed=billed, asked=asked) -> str:
        return " ".join(examine(plan, out, ends, expected, calm, billed, 0, asked).problems)

    assert problems() == ""
    assert "differs" in problems(calm=params + 1)
    assert "nobody is told" in problems(expected=Expected(says="ran out of"))
    assert "puts of S3" in problems(asked=asked | {"PUT": asked["PUT"] + 1})
    assert "gets of S3" in problems(asked=asked | {"GET": asked["GET"] - 1})
    assert "3 epochs" in problems(plan=replace(plan, epochs=3))
    assert "8 updates were counted twice" in problems(plan=replace(plan, epochs=1))
    assert "as if nothing had happened" in problems(expected=Expected(ends=frozenset({4})))
    assert "0 retries, not of 1" in problems(expected=Expected(retries=1))
    assert "0 throttles, not of 3" in problems(expected=Expected(throttles=3))
    assert "no event was delivered twice" in problems(expected=Expected(repeated=True))
    assert "ended with 4" in problems(ends=(replace(ended, code=4, said="no\n"), ended))
    assert "one sentence" in problems(
        ends=(replace(ended, code=4, said=""), ended), expected=Expected(ends=frozenset({4}))
    )
    more, less = (
        Billed(4, billed.least_mb_ms + by, billed.most_mb_ms + by, billed.all_mb_ms + by) for by in (1, -1)
    )
    assert "is settled" not in problems(billed=more)
    assert "are settled" in problems(billed=more, expected=Expected(answered=False))
    assert "every answer came" in problems(billed=less)
    assert problems(billed=less, expected=Expected(answered=False)) == ""
    tampered = params.copy()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(verdict, "last_params", lambda out, epochs: tampered)
        for name, value, found in (
            ("one update less of a row", params[0] + RATE / BATCH, "rows were counted 1 to 2 times"),
            ("the same", params[0] + RATE / BATCH, "the model contains 15.875 updates, reports tell of 16"),
            ("one more", params[0] - RATE / BATCH, "0.125 updates were counted twice"),
            ("no number", np.nan, "not finite"),
        ):
            tampered[0] = value
            assert found in problems(), name
    with pytest.MonkeyPatch.context() as patched:
        true = RunFolder.open(out).read_summary()
        for summary, found in (
            (replace(true, cost_usd=true.cost_usd + 1), "do not add up"),
            (replace(true, header=replace(true.header, budget_usd=Decimal(0))), "beyond the budget"),
        ):
            patched.setattr(RunFolder, "read_summary", lambda folder, summary=summary: summary)
            assert found in problems()


def test_bills_are_read_once_and_repeated_deliveries_apart(tmp_path):
    line = (
        "REPORT RequestId: {}\tDuration: 1.50 ms\tBilled Duration: {} ms\tMemory Size: {} MB\t"
        "Max Memory Used: 9 MB\t\n"
    )
    (tmp_path / "f").mkdir()
    log = tmp_path / "f" / "1-a.log"
    log.write_text(line.format("a", 2, 1769) + "START\n" + line.format("b", 3, 128))
    reader = BillReader(tmp_path)
    assert reader.since() == Billed(2, 3922, 3922, 3922)
    with log.open("a") as file:
        file.write(line.format("c", 5, 100) + line.format("c", 7, 100))
    assert reader.since() == Billed(2, 500, 700, 1200)
    assert reader.since() == Billed(0, 0, 0, 0)
    assert priced(1024 * 1000) == Decimal("0.0000166667")


def test_every_scenario_can_happen_under_some_pair_and_has_its_own_name():
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    assert {channel for scenario in SCENARIOS for channel in scenario.channels} == {c for _, c in PAIRS}
