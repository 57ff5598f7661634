"""Finding workloads by name or path, and building them from their folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import cast

from siren._roots import root_folder
from siren.errors import SirenError, UnknownNameError, WorkloadError
from siren.workloads.datasets import load_splits
from siren.workloads.datasets.cache import Progress
from siren.workloads.datasets.splits import Splits, shuffled
from siren.workloads.modules import load_module
from siren.workloads.protocol import Model
from siren.workloads.spec import WorkloadSpec
from siren.workloads.spec_file import MODEL_FILE, SPEC_FILE, check_samples, load_spec
from siren.workloads.user_data import load_user_splits
from siren.workloads.workload import Workload, user_error

_METHODS = ("init", "loss_and_grad", "evaluate")

ModelBuilder = Callable[[tuple[int, ...], int], Model]
"""`builder(feature_shape, classes) -> model`."""


def workload_names() -> list[str]:
    """The names of the workloads that come with Siren, sorted."""
    return sorted(path.parent.name for path in root_folder("workloads").glob(f"*/{SPEC_FILE}"))


def load_workload(
    name_or_path: str, *, overrides: Mapping[str, object] | None = None, progress: Progress | None = None
) -> Workload:
    """A workload, its data in memory and its settings validated; `Workload.check` then tries its model.

    Args:
        name_or_path: One of `workload_names()`, or the path of a folder with `workload.toml` and
            `model.py`. A name wins over a folder of that name in the working directory.
        overrides: Values for the `[training]` section; those that are None are left as they are.
        progress: Called while data is fetched; a progress bar on stderr without it.

    Raises:
        UnknownNameError: No workload of that name.
        WorkloadError: The folder breaks its contract; one line a problem.
        MissingExtraError: The model needs a package that is not installed.
        DatasetError: The data cannot be had; `DatasetUnavailableError` if no source answers.
    """
    folder = find_folder(name_or_path)
    spec = load_spec(folder, overrides)
    module = load_module(folder / MODEL_FILE)
    build = _model_builder(folder, spec, module)  # refuse a bad model before its data is fetched
    splits = _load_data(folder, spec, module, progress)
    check_samples(folder, spec.training, len(splits.train_features))
    dataset = shuffled(splits, spec.dataset.shuffle_seed)
    return Workload(folder.name, spec, build(dataset.feature_shape, dataset.classes), dataset, folder)


def find_folder(name_or_path: str) -> Path:
    """The folder of a workload, by the rule of `load_workload`.

    Raises:
        UnknownNameError: No workload of that name.
        WorkloadError: A path to something else than a workload's folder.
    """
    names = workload_names()
    if name_or_path in names:
        return root_folder("workloads") / name_or_path
    path = Path(name_or_path).expanduser()
    separators = [os.sep, *([os.altsep] if os.altsep else [])]
    looks_like_path = name_or_path.startswith((".", "~")) or any(mark in name_or_path for mark in separators)
    if not looks_like_path and not (path / SPEC_FILE).is_file():
        raise UnknownNameError("workload", name_or_path, names)
    path = path.resolve()
    if not path.is_dir():
        raise WorkloadError(
            f"{path}: no such folder; give the path of a folder with {SPEC_FILE} and {MODEL_FILE}, "
            f"or one of {', '.join(names)}"
        )
    missing = [file for file in (SPEC_FILE, MODEL_FILE) if not (path / file).is_file()]
    if missing:
        raise WorkloadError(
            f"{path}: {' and '.join(missing)} missing; a workload's folder holds {SPEC_FILE} and {MODEL_FILE}"
        )
    return path


def _model_builder(folder: Path, spec: WorkloadSpec, module: ModuleType) -> ModelBuilder:
    """How to build the module's model once its data is known; refuses a module that has none."""
    file = folder / MODEL_FILE
    settings = spec.model.settings
    if spec.model.adapter == "torch":
        build = _callable_of(file, module, "build", "build(feature_shape, classes, **settings)")
        from siren.workloads.torch_model import TorchModel

        return lambda feature_shape, classes: TorchModel(build, feature_shape, classes, settings, file)
    make = _callable_of(file, module, "Model", "a class Model")

    def builder(feature_shape: tuple[int, ...], classes: int) -> Model:
        try:
            model = make(feature_shape, classes, **settings)
        except Exception as error:
            if isinstance(error, SirenError):
                raise
            raise WorkloadError(user_error(file, "Model(...)", error)) from error
        missing = [name for name in _METHODS if not callable(getattr(model, name, None))]
        missing += [] if hasattr(model, "layout") else ["layout"]
        if missing:
            raise WorkloadError(
                f"{file}: Model has no {', '.join(missing)}; the protocol is in siren/workloads/protocol.py"
            )
        return cast(Model, model)

    return builder


def _callable_of(file: Path, module: ModuleType, name: str, wanted: str) -> Callable[..., object]:
    found = getattr(module, name, None)
    if not callable(found):
        raise WorkloadError(
            f"{file}: defines no {name}; it must define {wanted}, see model.adapter in {SPEC_FILE}"
        )
    return cast("Callable[..., object]", found)


def _load_data(folder: Path, spec: WorkloadSpec, module: ModuleType, progress: Progress | None) -> Splits:
    settings = spec.dataset.settings
    if spec.dataset.source != MODEL_FILE:
        return load_splits(spec.dataset.source, settings, folder=folder, progress=progress)
    file = folder / MODEL_FILE
    load = _callable_of(file, module, "load_dataset", "load_dataset(**settings)")
    return load_user_splits(file, load, settings, spec.title)
