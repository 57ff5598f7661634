from __future__ import annotations

import pytest

from siren.types import BatchRule
from siren.workloads.spec import TrainingSpec


def spec(**settings) -> TrainingSpec:
    return TrainingSpec(target_loss=0.1, batch_size=50, learning_rate=0.2, **settings)


def test_rate_steps_are_cumulative():
    training = spec(learning_rate_steps=((3, 0.5), (5, 0.1)))
    assert [training.rate(epoch, 50) for epoch in (1, 2, 3, 4, 5, 9)] == pytest.approx(
        [0.2, 0.2, 0.1, 0.1, 0.01, 0.01]
    )


@pytest.mark.parametrize(("rule", "factor"), [("none", 1), ("sqrt", 2), ("linear", 4)])
def test_rate_follows_the_batch_under_split_alone(rule, factor):
    assert spec(batch_rule=BatchRule.SPLIT, split_learning_rate=rule).rate(1, 200) == pytest.approx(
        0.2 * factor
    )
    assert spec(batch_rule=BatchRule.CONSTANT, split_learning_rate=rule).rate(1, 200) == 0.2


@pytest.mark.parametrize("steps", [((5, 0.1), (3, 0.5)), ((3, 0.5), (3, 0.5))])
def test_rate_steps_must_ascend(steps):
    with pytest.raises(ValueError, match="must name ascending epochs"):
        spec(learning_rate_steps=steps)
