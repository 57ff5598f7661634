"""The ladder of whole jobs: which curves are worth their time, and which actions worth a race."""

from __future__ import annotations

import numpy as np
import pytest

from siren.rehearsal.ladder import Ladder, _between, _mean_losses
from siren.rehearsal.schedule import Schedule
from siren.rehearsal.stage import Curve
from tests.rehearsal.clock import Clock
from tests.rehearsal.test_rehearse import HEAVY, stage_of

TARGET = 0.6


def ladder(batch_rule: str = "split") -> Ladder:
    stage = stage_of(clock=Clock(0.01), cost=HEAVY, training={"batch_rule": batch_rule})
    return Ladder(stage, 1769, TARGET, 10.0, Schedule(0.0, 60.0, 0.01, 60.0))


def curve(functions: int, *losses: float, cut: bool = False) -> Curve:
    return Curve(functions, np.array(losses), cut, 0.1)


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("target", [0.1, 0.498, 0.6, 0.647])
def test_curves_that_all_reached_the_target_are_at_it_on_average(count, target):
    """Their mean may round to a number above it, and the count would look as if it never arrived."""
    curves = [curve(8, 0.9, 0.7, target - 0.01) for _ in range(count)]
    assert _mean_losses(curves, 5, target)[2:].tolist() == [target] * 3


def test_fewer_functions_than_some_that_were_too_slow_are_not_tried():
    found = ladder()
    found._curves = {8: [curve(8, 0.9, 0.8, 0.7)]}
    assert found._too_slow() == 8
    found._curves[16] = [curve(16, 0.9, 0.7, 0.8)]  # it rises: fewer may do what it cannot
    assert found._too_slow() == 8
    constant = ladder("constant")
    constant._curves = {8: [curve(8, 0.9, 0.8, 0.7)]}
    assert constant._too_slow() == 0
    found._curves = {8: [curve(8, 0.9, 0.8, 0.7, cut=True)], 4: [curve(4, 0.9, 0.7, 0.59)]}
    assert found._too_slow() == 0


def test_sizes_between_those_of_the_slacks_race_as_well():
    assert _between([3, 3, 9]) == [3, 6, 9]
    assert _between([4]) == [4]
    assert _between([2, 3, 7]) == [2, 3, 5, 7]
