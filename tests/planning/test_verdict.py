"""Functions or machines."""

from __future__ import annotations

from decimal import Decimal

from siren.planning.bands import band_of, chance_of
from siren.planning.machines import VmOption
from siren.planning.prediction import Prediction
from siren.planning.verdict import verdict_on

BUDGET = Decimal("1.00")


def functions(time_s: float | None, usd: float) -> Prediction:
    times = band_of([time_s] if time_s else [])
    return Prediction("fixed:8x1769", 1, 1 if time_s else 0, times, band_of([usd]), chance_of(1, 1))


def vm(name: str, time_s: float, usd: float) -> VmOption:
    return VmOption(name, 1, 1, 1.0, 1.0, band_of([time_s]), band_of([usd]), False)


def test_a_machine_that_is_cheaper_and_faster_is_advised_with_the_numbers():
    verdict = verdict_on(functions(100.0, 0.10), [vm("slow", 200, 0.01), vm("good", 50, 0.02)], BUDGET)
    assert verdict.use_vm
    assert verdict.instance == "good"
    assert "use a VM instead: good takes 50.0s for $0.0200, 2.0 times as fast and 5.0 times" in verdict.text


def test_functions_stay_where_machines_are_only_cheaper_or_only_faster():
    cheaper = verdict_on(functions(10.0, 0.10), [vm("slow", 200, 0.01)], BUDGET)
    assert not cheaper.use_vm
    assert "functions are faster, 20.0 times" in cheaper.text
    faster = verdict_on(functions(100.0, 0.10), [vm("dear", 50, 0.5)], BUDGET)
    assert not faster.use_vm
    assert "functions are cheaper" in faster.text
    neither = verdict_on(functions(10.0, 0.10), [vm("bad", 50, 0.5)], BUDGET)
    assert not neither.use_vm
    assert "faster and cheaper" in neither.text


def test_a_machine_beyond_the_budget_does_not_count():
    assert not verdict_on(functions(100.0, 2.0), [vm("dear", 50, 1.5)], BUDGET).use_vm
    assert "no EC2 machine" in verdict_on(functions(100.0, 2.0), [vm("dear", 50, 1.5)], BUDGET).text


def test_a_machine_is_advised_where_functions_never_get_there():
    verdict = verdict_on(functions(None, 0.5), [vm("any", 500, 0.4)], BUDGET)
    assert verdict.use_vm
    assert "not expected to reach the target" in verdict.text
