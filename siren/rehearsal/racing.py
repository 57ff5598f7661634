"""Successive halving: candidates on common seeds, of which half leave after every round."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from siren.rehearsal.selection import Standing, standing_of
from siren.rehearsal.stage import Candidate, Trial
from siren.rehearsal.workers import Workers
from siren.simulator.search import FAILURE

HALVING = (2, 4, 8, 16)
"""Seeds that those who are left have played after each round."""

Play = Callable[[Sequence[Candidate], Sequence[int], float, Workers], list[Trial]]
"""Plays candidates on seeds until a time on the pool's clock."""


def race(
    candidates: Sequence[Candidate],
    play: Play,
    first_seed: int,
    until: float,
    pool: Workers,
) -> list[Standing]:
    """All that played a whole round, the best first; those that stayed longer before those that left.

    A failure counts as `FAILURE` times the mean time of the fastest among the most reliable.

    Args:
        candidates: Who races; names are unique.
        play: Plays them.
        first_seed: Everybody plays the seeds from this one on.
        until: On the pool's clock; a round that it cuts short does not count.
        pool: Who plays.
    """
    left, found, seen = list(candidates), list[Standing](), 0
    played: dict[str, list[Trial]] = {candidate.name: [] for candidate in candidates}
    for count in HALVING:
        for trial in play(left, range(first_seed + seen, first_seed + count), until, pool):
            played[trial.candidate].append(trial)
        seen = count
        if any(len(played[candidate.name]) < count for candidate in left):
            break
        failure_s = FAILURE * reliable_s([played[candidate.name] for candidate in left])
        standings = [standing_of(candidate, played[candidate.name], failure_s) for candidate in left]
        standings.sort(key=lambda standing: standing.score_s)
        names = {candidate.name for candidate in left}
        found = standings + [s for s in found if s.candidate.name not in names]
        left = [standing.candidate for standing in standings[: (len(left) + 1) // 2]]
    return found


def reliable_s(played: Sequence[Sequence[Trial]]) -> float:
    """Mean time of the successes of the fastest among those who fail at most once more often than the best.

    Infinite without a success. All played the same number of seeds.
    """
    successes = [[trial.duration_s for trial in trials if trial.success] for trials in played]
    most = max(map(len, successes))
    return min((float(np.mean(s)) for s in successes if s and len(s) >= most - 1), default=math.inf)
