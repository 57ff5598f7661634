"""Large jobs on a sub-sample: what is trained, what is billed, what is expected of the whole."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import pytest

from siren.errors import WorkloadError
from siren.rehearsal.sampled import (
    HELDOUT_MOST,
    PUSHES_LEAST,
    SampledPlatform,
    epochs_to,
    expected_epochs,
    subsample,
)
from siren.simulator.job import EpisodeSpec
from siren.testing.platform import PlatformConformance, Subject
from siren.testing.tiny import tiny_costing, tiny_workload
from siren.twin.twin import Twin, job_of
from siren.types import Action
from siren.workloads.workload import Workload
from siren.worlds.costing import make_costing

ACTIONS = (Action(3, 1024), Action(1, 256), Action(8, 1024), Action(3, 1769))


def large(**training) -> Workload:
    """240 pushes of one sample an epoch."""
    return tiny_workload(kernel=False, training={"batch_size": 1, **training})


def platform_of(workload: Workload, fraction: float, seed: int = 7) -> SampledPlatform:
    costing, part = tiny_costing(workload), subsample(workload, fraction)
    spec = EpisodeSpec(costing, 1.0, 0.47, 1.0, 8, 1024, 1.0, 1.0)
    return SampledPlatform(Twin(part, make_costing(costing.world, job_of(part)), seed), spec, seed)


class TestSampled(PlatformConformance):
    @pytest.fixture(params=["constant", "split"])
    def subject(self, request) -> Subject:
        workload = large(batch_rule=request.param)

        @contextlib.contextmanager
        def breaking(platform: SampledPlatform) -> Iterator[None]:
            def explode(params, features, labels):
                raise ZeroDivisionError("as arranged")

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(workload.model, "evaluate", explode)
                yield

        costing = tiny_costing(workload)
        return Subject(lambda: platform_of(workload, 0.25), costing, ACTIONS, breaking, WorkloadError)


@pytest.mark.parametrize(("fraction", "pushes"), [(0.5, 120), (0.25, 60), (1e-9, PUSHES_LEAST), (0.999, 240)])
def test_constant_batches_keep_their_size_and_become_fewer(fraction, pushes):
    workload = large()
    part = subsample(workload, fraction)
    assert part.samples == pushes
    assert part.spec.training.batch_size == workload.spec.training.batch_size
    assert job_of(part).pushes(4) == pushes


def test_a_job_of_few_batches_stays_whole():
    workload = tiny_workload()  # 24 pushes
    assert subsample(workload, 0.01).samples == workload.samples


@pytest.mark.parametrize(("fraction", "each"), [(0.5, 2), (0.25, 1), (1e-9, 1), (0.9, 4)])
def test_split_batches_keep_their_size_and_become_fewer_for_each_function(fraction, each):
    workload = tiny_workload(training={"batch_rule": "split"})
    whole, part = job_of(workload), job_of(subsample(workload, fraction))
    assert part.pushes_per_function == each
    assert part.samples == 240 * each // 4
    for n in (1, 4, 10):
        assert part.samples / float(part.pushes(n)) == whole.samples / float(whole.pushes(n))
    assert part.functions_max == whole.functions_max


def test_held_out_samples_are_limited():
    workload = tiny_workload(dataset={"settings": {"samples": 240, "heldout": HELDOUT_MOST + 500}})
    part = subsample(workload, 0.5)
    assert len(part.dataset.heldout_labels) == HELDOUT_MOST
    assert len(workload.dataset.heldout_labels) == HELDOUT_MOST + 500


def test_held_out_samples_are_evenly_spread():
    """Those that come first may be the hardest."""
    workload = tiny_workload(dataset={"settings": {"samples": 240, "heldout": 2 * HELDOUT_MOST}})
    part = subsample(workload, 0.5)
    np.testing.assert_array_equal(part.dataset.heldout_features, workload.dataset.heldout_features[::2])
    np.testing.assert_array_equal(part.dataset.heldout_labels, workload.dataset.heldout_labels[::2])


def test_times_and_bills_are_those_of_the_whole_job():
    workload = large()
    costing = tiny_costing(workload)
    subject = Subject(lambda: platform_of(workload, 0.2), costing, ACTIONS)
    whole = costing.expect(np.array([3.0]), np.array([1024.0]), np.array([3.0]), np.array([3.0]))
    part = tiny_costing(subsample(workload, 0.2)).expect(*(np.array([x]) for x in (3.0, 1024.0, 3.0, 3.0)))
    seconds = []
    for seed in range(20):
        platform = platform_of(workload, 0.2, seed)
        platform.start()
        report = platform.run_epoch(subject.plan(ACTIONS[0]))
        seconds.append(report.duration_s)
        assert report.pushes == 240
    expected_s = float(np.asarray(whole.duration_s).item())
    assert np.mean(seconds) == pytest.approx(expected_s, rel=0.1)
    assert expected_s > 1.3 * float(np.asarray(part.duration_s).item())


def test_the_model_is_the_sub_samples_and_can_be_set_back():
    platform = platform_of(large(), 0.25)
    subject = Subject(lambda: platform, platform.costing, ACTIONS)
    initial, _ = platform.start()
    before = platform.params.copy()
    loss = platform.run_epoch(subject.plan(ACTIONS[0])).loss
    assert loss < initial
    platform.set_params(before)
    np.testing.assert_array_equal(platform.params, before)
    assert platform.start()[0] == initial


def test_the_whole_job_needs_fewer_epochs_than_its_sub_sample():
    losses = np.array([1.0, 0.8, 0.6, 0.5, 0.4])
    assert expected_epochs(losses, 0.5, 0.6, 30) == 1
    assert expected_epochs(losses, 1.0, 0.4, 30) == 4
    assert expected_epochs(losses, 0.25, 0.45, 30) == pytest.approx(3.5 * 0.25)


@pytest.mark.parametrize(
    ("losses", "level", "epochs"),
    [
        ([1.0, 0.8, 0.6], 0.7, 1.5),
        ([1.0, 0.8, 0.6], 0.6, 2.0),
        ([1.0, 0.8, 0.6], 0.5, math.inf),
        ([1.0, 0.5, 0.9, 0.5], 0.7, 2.5),
        ([1.0, math.inf, 0.5], 0.7, 2.0),
        ([1.0, 0.5, math.nan], 0.7, math.inf),
        ([0.5, 0.4], 0.7, 0.0),
    ],
)
def test_a_level_is_reached_for_good_between_two_epochs(losses, level, epochs):
    assert epochs_to(np.array(losses), level) == pytest.approx(epochs)


def test_a_power_law_is_followed_beyond_the_curve():
    seen = np.arange(1, 11) * 0.1
    losses = np.concatenate([[2.0], 0.5 * seen**-0.5])
    assert expected_epochs(losses, 0.1, 0.25, 30) == pytest.approx(4.0)  # .5 x 4^-.5 = .25
    assert expected_epochs(losses, 0.1, 0.01, 30) == 30
    flat = np.concatenate([[2.0], 0.5 * seen**-0.0015])
    assert expected_epochs(flat, 0.1, 0.01, 30) == 30  # e^2600


@pytest.mark.parametrize(
    "losses",
    [
        [1.0, 1.0, 1.0, 1.0],
        [1.0, 2.0, 3.0, 4.0],
        [1.0, 2.0, np.nan],
        [1.0, np.inf],
        [1.0, 0.9],
        [1.0],
    ],
)
def test_a_curve_that_tells_nothing_is_taken_to_need_the_most(losses):
    assert expected_epochs(np.array(losses), 0.1, 0.5, 30) == 30
