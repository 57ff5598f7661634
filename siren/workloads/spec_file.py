"""Reading and validating `workload.toml`."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from siren.errors import WorkloadError
from siren.types import BatchRule
from siren.workloads.datasets import LOADERS
from siren.workloads.spec import TrainingSpec, WorkloadSpec

SPEC_FILE = "workload.toml"
MODEL_FILE = "model.py"


def load_spec(folder: Path, overrides: Mapping[str, object] | None = None) -> WorkloadSpec:
    """The validated `workload.toml` of a folder, without loading its data.

    Args:
        folder: The workload's folder.
        overrides: Values for the `[training]` section; None leaves a value as it is.

    Raises:
        WorkloadError: TOML or schema errors, one line a problem.
    """
    file = folder / SPEC_FILE
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkloadError(
            f"{file}: cannot be read: {error.strerror}; a workload's folder must have it"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{file}: not valid TOML: {error}; correct it there") from error
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    if given:
        training = content.get("training", {})
        content["training"] = {**(training if isinstance(training, dict) else {}), **given}
    try:
        spec = WorkloadSpec.model_validate(content)
    except ValidationError as error:
        raise WorkloadError("\n".join(_problem(file, given, dict(item)) for item in error.errors())) from None
    if spec.dataset.source not in (*LOADERS, MODEL_FILE):
        near = difflib.get_close_matches(spec.dataset.source, [*LOADERS, MODEL_FILE], n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        choices = ", ".join([*sorted(LOADERS), MODEL_FILE])
        raise WorkloadError(
            f"{file}: dataset.source: no dataset {spec.dataset.source!r}: {hint}choose one of {choices}"
        )
    return spec


def _problem(file: Path, overrides: Mapping[str, object], item: Mapping[str, Any]) -> str:
    """One line for one of pydantic's errors."""
    location = [str(part) for part in item["loc"]]
    where = ".".join(location)
    if location[0] == "training" and len(location) > 1 and location[1] in overrides:
        where += " (overridden)"
    match item["type"]:
        case "extra_forbidden":
            known = _known_keys(location[:-1])
            near = difflib.get_close_matches(location[-1], known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            return f"{file}: {where}: unknown key: {hint}the keys are {', '.join(known)}"
        case "missing":
            return f"{file}: {where}: missing; add it"
        case _:
            message = str(item["msg"])
            return f"{file}: {where}: {message[0].lower()}{message[1:]}, not {item['input']!r}"


def _known_keys(section: list[str]) -> list[str]:
    fields = WorkloadSpec.model_fields
    for part in section:
        annotation = fields[part].annotation if part in fields else None
        fields = getattr(annotation, "model_fields", {})
    return sorted(fields)


def check_samples(folder: Path, training: TrainingSpec, available: int) -> None:
    """Refuse an epoch that the training set cannot fill, or that mini-batches do not divide.

    Raises:
        WorkloadError: More samples than there are, or a batch size that does not divide them under
            the `constant` rule.
    """
    file = folder / SPEC_FILE
    if training.samples_per_epoch > available:
        raise WorkloadError(
            f"{file}: training.samples_per_epoch is {training.samples_per_epoch:,}, the training set has "
            f"{available:,} samples; lower it, or use 0 for the whole set"
        )
    samples, batch = training.samples_per_epoch or available, training.batch_size
    if training.batch_rule is BatchRule.CONSTANT and samples % batch:
        near = nearest_divisors(samples, batch)
        raise WorkloadError(
            f"{file}: training.batch_size {batch:,} does not divide the {samples:,} samples of an epoch; "
            f"the nearest that do: {' and '.join(f'{n:,}' for n in near)}"
        )


def nearest_divisors(number: int, near: int) -> list[int]:
    """The greatest divisor of `number` up to `near` and the least one from `near` on, as far as there are."""
    small = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    divisors = sorted({*small, *(number // n for n in small)})
    below = [n for n in divisors if n <= near][-1:]
    above = [n for n in divisors if n >= near][:1]
    return sorted({*below, *above})
