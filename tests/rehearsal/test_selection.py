from __future__ import annotations

import pytest

from siren.policies.reference import Reference
from siren.rehearsal.selection import BETTER, FAILURE, LEAST_SEEDS, Standing, choose, standings_of
from siren.rehearsal.stage import Candidate, Trial
from siren.types import Action

FIXED = Candidate("fixed:8x1769", action=Action(8, 1769))
AGENT = Candidate("agent", agent="agent", reference=Reference(8, 1769, 10.0, 0.1))
OTHER = Candidate("search", agent="search", reference=Reference(8, 1769, 10.0, 0.1))


def trial(candidate: Candidate, seed: int, duration_s: float, *, success: bool = True) -> Trial:
    return Trial(candidate.name, seed, success, duration_s, 0.01 * seed, 0.0)


def test_candidates_are_compared_on_the_seeds_that_all_of_them_played():
    trials = [trial(FIXED, 1, 10.0), trial(FIXED, 2, 20.0), trial(FIXED, 3, 90.0)]
    trials += [trial(AGENT, 1, 9.0), trial(AGENT, 2, 0.5, success=False)]
    fixed, agent = standings_of([FIXED, AGENT], trials)
    assert (fixed.episodes, fixed.successes, fixed.duration_s, fixed.score_s) == (2, 2, 15.0, 15.0)
    assert (fixed.low_s, fixed.high_s) == (pytest.approx(11.0), pytest.approx(19.0))
    assert fixed.cost_usd == pytest.approx(0.015)
    assert (agent.successes, agent.duration_s) == (1, 9.0)
    assert agent.score_s == (9.0 + FAILURE * 15.0) / 2


def test_failures_count_by_the_first_that_succeeds():
    trials = [trial(FIXED, k, 5.0, success=False) for k in range(LEAST_SEEDS)]
    trials += [trial(AGENT, k, 8.0) for k in range(LEAST_SEEDS)]
    trials += [trial(OTHER, k, 1.0, success=False) for k in range(LEAST_SEEDS)]
    fixed, agent, other = standings_of([FIXED, AGENT, OTHER], trials)
    assert (fixed.score_s, agent.score_s, other.score_s) == (FAILURE * 8.0, 8.0, FAILURE * 8.0)
    assert fixed.duration_s is None
    assert choose([fixed, agent, other])[0] == AGENT


def test_without_a_common_seed_nothing_is_compared():
    assert standings_of([FIXED, AGENT], [trial(FIXED, 1, 5.0), trial(AGENT, 2, 5.0)]) == []
    assert standings_of([FIXED], []) == []


def standing(candidate: Candidate, score_s: float, successes: int = 8, episodes: int = 8) -> Standing:
    return Standing(candidate, episodes, successes, score_s, score_s, score_s, 0.1, score_s)


@pytest.mark.parametrize(
    ("others", "choice"),
    [
        ([], FIXED),
        ([standing(AGENT, 9.0)], AGENT),
        ([standing(AGENT, 10.0 * BETTER)], FIXED),
        ([standing(AGENT, 11.0)], FIXED),
        ([standing(AGENT, 5.0, successes=7)], FIXED),
        ([standing(AGENT, 9.0), standing(OTHER, 8.0)], OTHER),
        ([standing(AGENT, 9.0), standing(OTHER, 8.0, successes=7)], AGENT),
    ],
)
def test_a_proposal_wins_only_if_it_is_faster_and_fails_no_more(others, choice):
    found, why = choose([standing(FIXED, 10.0), *others])
    assert found == choice
    assert ("no proposal" in why) == (choice == FIXED)
    assert "8" in why


def test_few_seeds_are_no_reason_to_prefer_a_proposal():
    few = LEAST_SEEDS - 1
    found, why = choose([standing(FIXED, 10.0, few, few), standing(AGENT, 1.0, few, few)])
    assert found == FIXED
    assert f"on {LEAST_SEEDS} fresh seeds" in why


def test_without_time_to_compare_the_fixed_action_is_kept():
    found, why = choose([standing(FIXED, 10.0, 0, 0)])
    assert found == FIXED
    assert "no time" in why
