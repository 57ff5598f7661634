"""A job so small that thousands of runs of it fit into a minute, in memory or as a folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import simplejson

from siren.testing import tiny_model
from siren.twin.twin import job_of
from siren.workloads.datasets import Splits
from siren.workloads.datasets.splits import shuffled
from siren.workloads.spec import WorkloadSpec
from siren.workloads.workload import Workload
from siren.worlds import World, load_world
from siren.worlds.costing import Costing, make_costing

SPEC: dict[str, Any] = {
    "title": "logistic regression on points around a line",
    "dataset": {
        "source": "model.py",
        "settings": {"samples": 240, "heldout": 80},
        "heldout": "80 points",
        "licence": "none",
    },
    "training": {
        "target_loss": 0.47,
        "batch_rule": "constant",
        "batch_size": 10,
        "pushes_per_function": 4,
        "update_rule": "additive",
        "channel": "redis",
        "learning_rate": 0.05,
    },
    "cost": {
        "seconds_per_sample": 1e-3,
        "seconds_per_push": 1e-3,
        "evaluate_seconds_per_sample": 1e-5,
        "parallel_fraction": 0.5,
        "sample_bytes": 16,
        "import_s": 0.1,
        "runtime_mb": 30.0,
        "package_mb": 48.0,
        "measured": "made up, so that a test's epoch takes about a second of virtual time",
    },
}
"""The `workload.toml` of the tiny job: 24 pushes an epoch, at most 24 functions."""


def tiny_spec(**sections: Mapping[str, Any]) -> WorkloadSpec:
    """`SPEC` with changes by section, e.g. `training={"batch_size": 5}`."""
    return WorkloadSpec.model_validate(_merged(sections))


def tiny_workload(*, kernel: bool = True, **sections: Mapping[str, Any]) -> Workload:
    """The tiny job in memory.

    Args:
        kernel: Whether the model has its compiled kernel; without it gradients come from numpy.
        sections: Changes of `SPEC` by section.
    """
    spec = tiny_spec(**sections)
    splits = Splits(*tiny_model.load_dataset(**spec.dataset.settings), 2, "points around a line (generated)")
    dataset = shuffled(splits, spec.dataset.shuffle_seed)
    model = tiny_model.Model(dataset.feature_shape, dataset.classes)
    if not kernel:
        model.kernel = None  # type: ignore[method-assign, assignment]
    return Workload("tiny", spec, model, dataset, Path(tiny_model.__file__).parent)


def tiny_costing(workload: Workload, world: World | None = None) -> Costing:
    """Laws and prices of a workload, by default in the world `aws-2026`."""
    return make_costing(world or load_world("aws-2026"), job_of(workload))


def write_tiny_workload(folder: Path, model: str | None = None, /, **sections: Mapping[str, Any]) -> Path:
    """The tiny job as a folder that `--workload` takes.

    Args:
        folder: A folder that does not exist yet.
        model: Text of another `model.py`.
        sections: Changes of `SPEC` by section.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    if model is None:
        shutil.copyfile(tiny_model.__file__, folder / "model.py")
    else:
        (folder / "model.py").write_text(model, encoding="utf-8")
    content = _merged(sections)
    lines = [f"title = {_toml(content.pop('title'))}"]
    for section, values in content.items():
        lines += ["", f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    (folder / "workload.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _merged(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    content = dict(SPEC)
    for section, changes in sections.items():
        content[section] = {**SPEC.get(section, {}), **changes}
    return content


def _toml(value: object) -> str:
    """A value as TOML; all but tables look the same in JSON."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items()) + " }"
    return simplejson.dumps(value)
