"""Successive halving on common seeds."""

from __future__ import annotations

import math

import pytest

from siren.rehearsal.racing import HALVING, race, reliable_s
from siren.rehearsal.stage import Candidate, Trial
from siren.types import Action

CANDIDATES = [Candidate(f"c{k}", action=Action(k + 1, 1769)) for k in range(5)]


class Track:
    """Candidate k takes 10 + k seconds, and fails on the seeds that it is told to."""

    def __init__(self, fails: dict[str, set[int]] | None = None, most: float = math.inf) -> None:
        self.fails, self.most = fails or {}, most
        self.played: list[tuple[str, int]] = []

    def play(self, candidates, seeds, until, pool) -> list[Trial]:
        found = []
        for seed in seeds:
            for candidate in candidates:
                if len(self.played) >= self.most:
                    return found
                self.played.append((candidate.name, seed))
                success = seed not in self.fails.get(candidate.name, set())
                found.append(Trial(candidate.name, seed, success, 10.0 + int(candidate.name[1:]), 0.1, 0.01))
        return found


def run(track: Track) -> list[str]:
    return [s.candidate.name for s in race(CANDIDATES, track.play, 100, math.inf, None)]


def test_the_fastest_wins_and_those_who_stayed_longer_are_before_the_others():
    track = Track()
    assert run(track) == ["c0", "c1", "c2", "c3", "c4"]
    played = {c.name: [s for name, s in track.played if name == c.name] for c in CANDIDATES}
    assert [len(played[c.name]) for c in CANDIDATES] == [
        HALVING[3],
        HALVING[2],
        HALVING[1],
        HALVING[0],
        HALVING[0],
    ]
    assert played["c0"] == list(range(100, 100 + HALVING[3]))


def test_who_fails_always_does_not_win_by_failing_early():
    assert run(Track({"c0": set(range(200))}))[0] == "c1"


def test_a_round_that_is_cut_short_does_not_count():
    track = Track(most=13)  # one round of five on two seeds, and a part of the next
    assert run(track) == ["c0", "c1", "c2", "c3", "c4"]
    standings = race(CANDIDATES, Track(most=13).play, 100, math.inf, None)
    assert {s.episodes for s in standings} == {HALVING[0]}
    assert race(CANDIDATES, Track(most=3).play, 100, math.inf, None) == []


def test_a_failure_counts_as_twice_the_fastest_of_the_most_reliable():
    trials = [
        [Trial("a", 0, True, 10.0, 0.1, 0.0), Trial("a", 1, False, 99.0, 0.1, 0.0)],
        [Trial("b", 0, True, 20.0, 0.1, 0.0), Trial("b", 1, True, 30.0, 0.1, 0.0)],
    ]
    assert reliable_s(trials) == pytest.approx(10.0)  # one failure more is as reliable
    assert reliable_s([trials[1]]) == pytest.approx(25.0)
    assert reliable_s([[Trial("c", 0, False, 5.0, 0.1, 0.0)]]) == math.inf
