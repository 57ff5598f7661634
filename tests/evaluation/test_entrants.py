import pytest

from siren.errors import UnknownNameError, UsageError
from siren.evaluation import seeds
from siren.evaluation.entrants import KINDS, parse_entrant
from siren.evaluation.settings import settings_of
from siren.policies import Safety
from siren.worlds import load_world

ASKED = {
    "policies": ("greedy",),
    "workloads": ("family",),
    "budgets": (1.5,),
    "worlds": ("aws-2026",),
    "jobs": 2,
    "seeds": 3,
}


def parsed(text, safety="all", platform="simulator", world="aws-2026"):
    return parse_entrant(text, KINDS, Safety.parse(safety), platform, [load_world(world)])


def test_safeguards_are_part_of_the_name_where_not_all_are_on():
    assert parsed("greedy").name == "greedy"
    assert parsed("greedy").safety == Safety()
    assert parsed("greedy!none").name == parsed("greedy", safety="none").name == "greedy!none"
    own = parsed("greedy!cap+reserve", safety="none")
    assert own.name == "greedy!cap+reserve"
    assert own.safety == Safety(back_off=False, roll_back=False)


def test_fixed_baselines_have_no_safeguards():
    assert parsed("best-fixed", safety="none").safety is None
    assert parsed("fixed:10x1769").name == "fixed:10x1769"
    with pytest.raises(UsageError, match="no safeguards"):
        parsed("fixed:10x1769!none")


def test_memory_off_the_grid_of_a_world_is_refused_and_not_rounded():
    with pytest.raises(UsageError, match="the nearest are"):
        parsed("fixed:10x1770")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("greeedy", "did you mean 'greedy'"),
        ("greedy:4", "no argument"),
        ("greedy@best-fixed", "only an agent"),
        ("greedy!brakes", "safeguard"),
        ("fixed:many", "fixed:20x1769"),
    ],
)
def test_what_cannot_be_is_refused(text, said):
    with pytest.raises(UsageError, match=said):
        parsed(text)


def test_what_needs_the_true_model_is_refused_in_the_twin():
    for text in ("planner", "lower-bound"):
        with pytest.raises(UsageError, match="--platform simulator"):
            parsed(text, platform="twin")


def test_seeds_that_choose_never_report():
    ranges = [seeds.scout_seeds(), seeds.select_seeds(), seeds.report_seeds(seeds.MOST_REPORT)]
    for a in ranges:
        for b in ranges:
            assert a == b or a.stop <= b.start or b.stop <= a.start
    assert len(seeds.select_seeds()) >= 24


def test_the_best_fixed_action_always_plays():
    names = [entrant.name for entrant in settings_of(ASKED).entrants(KINDS)]
    assert names == ["best-fixed", "greedy"]


def test_generated_jobs_are_numbered_from_the_first_that_is_asked_for():
    cases = settings_of({**ASKED, "jobs": 3, "first_job": 100}).cases()
    assert sorted({case.job.index for case in cases}) == [100, 101, 102]


def test_a_case_for_every_job_and_budget():
    cases = settings_of({**ASKED, "budgets": (1.2, 2.0), "update_rules": ("additive",)}).cases()
    assert [(c.job.index, c.budget_ratio) for c in cases] == [(0, 1.2), (1, 1.2), (0, 2.0), (1, 2.0)]
    assert {c.job.workload for c in cases} == {"family-2026"}
    assert {c.job.update_rule for c in cases} == {"additive"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budgets": (0.9,)}, "--budgets 0.9: 0.9 is below 1"),
        ({"seeds": 0}, "--seeds 0"),
        ({"update_rules": ("hogwild",)}, "--update-rules hogwild"),
        ({"policies": ()}, "--policies"),
        ({"platform": "aws"}, "platform"),
        ({"worlds": ("mars",)}, "world"),
        ({"workloads": ("mlp-mnist",)}, "--platform twin"),
        ({"workloads": ("small-2026",)}, "HspTwin"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, said):
    with pytest.raises(UsageError, match=said):
        settings_of({**ASKED, **changes}).cases()


def test_unknown_names_are_refused_with_what_there_is():
    with pytest.raises(UnknownNameError, match="best-fixed"):
        settings_of({**ASKED, "policies": ("oracle",)}).entrants(KINDS)
