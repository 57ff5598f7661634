"""How a rehearsal divides its time."""

from __future__ import annotations

from dataclasses import dataclass

LADDER_SHARE, FIXED_SHARE, AGENT_SHARE, SEARCH_SHARE = 0.25, 0.45, 0.52, 0.85
"""Shares of the time after which the ladder, the fixed actions, the agents and the search are done."""

LONGEST_LADDER, TRIALS_LEAST = 0.85, 12
"""Share of the time that the ladder takes where the rest would not do for so many trials."""

EPISODES = 8
"""Whole episodes that there should be time for, else a sub-sample is taken: a ladder and a few trials.
Forty let agents be judged too (60 generated jobs, in a prototype); with fewer the fall-back is the answer."""

EPOCHS = 10
"""Epochs that an unknown job is taken to need."""


@dataclass(frozen=True)
class Schedule:
    """The time of a rehearsal once its size is known.

    Attributes:
        began_s: When it began, on the stage's clock.
        seconds: How long it may take.
        epoch_s: Real seconds of an epoch, about.
        asked_s: How long the whole rehearsal was to take, for messages.
    """

    began_s: float
    seconds: float
    epoch_s: float
    asked_s: float

    def until(self, share: float) -> float:
        """When so much of the time is over."""
        return self.began_s + share * self.seconds
