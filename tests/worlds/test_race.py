"""Races of a few functions under compare-and-swap, played out."""

import numpy as np
import pytest

from siren.worlds import events, load_world
from siren.worlds.race import COMMITS, few_race

STORE = load_world("aws-2026").channels["s3"]
READ, WRITE = events.latency_of(STORE, read=True), events.latency_of(STORE, read=False)
CERTAIN = events.Latency(0.03, 0.0, 0.0, 0.0, 2.0, 0.0)
"""Always 30 ms."""


def test_of_two_functions_in_lockstep_one_loses_and_repeats():
    """Both read at 30 ms and write at 70; one of them lost, reads again at 100 and writes at 130."""
    last_s, own_s, retries = few_race(2, 1.0, 0.0, 0.01, 0.0, CERTAIN, CERTAIN)
    assert last_s == pytest.approx(0.07 + 0.06)
    assert own_s == pytest.approx((0.07 + 0.13) / 2)
    assert retries == 1


def test_a_long_epoch_goes_on_at_the_pace_of_a_short_one():
    steps = COMMITS / 4
    short, long = (np.array(few_race(4, k * steps, 0.01, 0.05, 3e-4, READ, WRITE)) for k in (1, 3))
    assert long[1:] == pytest.approx(3 * short[1:])
    assert short[0] < long[0] < 3 * short[0]


def test_more_functions_commit_faster_and_retry_more():
    """The same updates in all."""
    found = [few_race(n, 240 / n, 0.001, 0.1, 3e-4, READ, WRITE) for n in (2, 4, 8, 12)]
    times, _, retries = zip(*found, strict=True)
    assert list(times) == sorted(times, reverse=True)
    assert list(retries) == sorted(retries)


def test_the_same_question_has_the_same_answer():
    few_race.cache_clear()
    first = few_race(5, 20.5, 0.001, 0.1, 3e-4, READ, WRITE)
    few_race.cache_clear()
    assert few_race(5, 20.5, 0.001, 0.1, 3e-4, READ, WRITE) == first
