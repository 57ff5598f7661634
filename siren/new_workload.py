"""Write a workload of your own to start from: `python -m siren.new_workload NAME`."""

from __future__ import annotations

import contextlib
import csv
import shutil
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Annotated, Literal, TextIO

import numpy as np
import tyro
from threadpoolctl import threadpool_limits

from siren.analysis.console import console_for
from siren.errors import RunFolderError, SirenError, UsageError, WorkloadError
from siren.types import StopReason
from siren.units import counted
from siren.workloads.registry import load_workload
from siren.workloads.spec_file import MODEL_FILE, SPEC_FILE
from siren.workloads.starting import RATES, Start, find_start

TEMPLATES = Path(__file__).parent / "workloads" / "templates"

KINDS = (".csv", ".npz")

PUSHES = 100
"""Updates of an epoch, about."""

BATCH_MOST = 128

MOST_CLASSES = 1000
"""More different labels than this are taken for a quantity, which a classifier cannot learn."""

PAIRS = (("features", "labels"), ("x", "y"), ("X", "y"), ("data", "target"))
"""Names of the arrays in an `.npz` file."""

RUNTIMES = {"numpy": (0.38, 61, 48), "torch": (1.84, 242, 755)}
"""Seconds of imports, MB of memory and of the package: those of softmax-digits and lenet-mnist, measured
2026-11-22 by experiments/calibrate_workloads.py."""

Adapter = Literal["numpy", "torch"]


@dataclass(frozen=True)
class NewWorkloadConfig:
    """Write the folder of a workload of your own: a commented workload.toml and a model.py that work.

    The numbers in it are found by a few seconds of plain SGD on your data: a learning rate, a target
    loss that takes some epochs, and what a sample costs to compute. Exit codes: 0 written, 1 internal
    error, 2 usage, or data that cannot be learned, 4 a file could not be written, 130 interrupted.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """The folder to write; its last part names the workload."""

    adapter: Annotated[Adapter, tyro.conf.arg(name="from")] = "numpy"
    """numpy: a class with its own gradient; torch: a torch.nn.Module (needs the extra torch)."""

    data: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Your data, copied into the folder: a .csv whose last column is the class, or an .npz with the
    arrays features and labels (or x and y). Default: a function that makes some up."""


def main(config: NewWorkloadConfig, stdout: TextIO | None = None, stderr: TextIO | None = None) -> int:
    """Writes the folder; returns the exit code.

    Args:
        config: What the user asked for.
        stdout: Where results go; `sys.stdout` by default.
        stderr: Where errors go; `sys.stderr` by default.
    """
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    try:
        with threadpool_limits(1), contextlib.redirect_stdout(stderr):
            folder = _folder_of(config.name)
            start = _written(folder, config)
    except SirenError as error:
        return _fail(stderr, error, error.exit_code)
    except KeyboardInterrupt:
        return _fail(stderr, "interrupted; nothing was written", StopReason.INTERRUPTED.exit_code)
    where = f"./{config.name}" if not Path(config.name).is_absolute() else config.name
    console = console_for(stdout)
    console.print(
        f"{where}: {SPEC_FILE} and {MODEL_FILE}; target {start.target_loss:g}, "
        f"learning rate {start.learning_rate:g}\n"
        f"train it:    python -m siren.run --workload {where} --budget 1\n"
        f"plan it:     python -m siren.plan --workload {where} --budget 1\n"
        f"measure it:  python -m siren.profile --workload {where}",
        soft_wrap=True,
    )
    return 0


def _fail(stderr: TextIO, error: object, code: int) -> int:
    print(f"siren.new_workload: {error}", file=stderr)
    return code


def _folder_of(name: str) -> Path:
    folder = Path(name).expanduser()
    if not name.strip() or not folder.name or folder.name in (".", ".."):
        raise UsageError(f"{name!r} is no name for a folder: give one like my-job")
    if folder.exists():
        raise UsageError(f"{folder} exists already: choose another name (nothing is ever replaced)")
    return folder


def _written(folder: Path, config: NewWorkloadConfig) -> Start:
    """Makes the folder beside its final place, tries it out, and moves it there when it works."""
    parts = _data_parts(config.data)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            made = Path(temporary) / folder.name
            made.mkdir()
            start = _make(made, config, parts)
            made.rename(folder)
    except OSError as error:
        raise RunFolderError(
            f"cannot write {folder}: {error.strerror}; choose a folder that you may write to"
        ) from error
    return start


def _data_parts(data: Path | None) -> dict[str, str]:
    """What the templates need to know of the data.

    Raises:
        UsageError: The file cannot be used.
    """
    if data is None:
        generated = {"load": "load_generated", "file": "", "heldout": "400 generated points"}
        return {**generated, "settings": "seed = 0"}
    kind = data.suffix.lower()
    if kind not in KINDS:
        raise UsageError(f"--data {data}: give a file that ends in {' or '.join(KINDS)}")
    if not data.is_file():
        raise UsageError(f"--data {data}: there is no such file; check the path")
    names = _array_names(data) if kind == ".npz" else {}
    if kind == ".csv":
        _check_table(data)
    known = {"load": f"load_{kind[1:]}", "file": f"data{kind}", "settings": "seed = 0"}
    return {**known, "heldout": "a fifth of the rows, drawn at random", **names}


def _check_table(data: Path) -> None:
    try:
        with data.open(newline="", encoding="utf-8") as table:
            rows = [row for row in csv.reader(table) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--data {data}: cannot be read ({error}); save it as CSV in UTF-8") from None
    widths = {len(row) for row in rows}
    if len(rows) < 20 or len(widths) != 1 or min(widths) < 2:
        raise UsageError(
            f"--data {data}: give at least 20 lines of equally many values, the last of which is the class"
        )
    for number, row in enumerate(rows[1:], start=2):
        for value in row[:-1]:
            try:
                float(value)
            except ValueError:
                raise UsageError(
                    f"--data {data}, line {number}: {value!r} is not a number; "
                    "only the last column may be text"
                ) from None
    _check_classes(data, len({row[-1].strip() for row in rows[1:]}), len(rows))


def _array_names(data: Path) -> dict[str, str]:
    try:
        arrays = np.load(data)
        pair = next((p for p in PAIRS if all(name in arrays for name in p)), None)
        if pair is None:
            wanted = ", or ".join(" and ".join(p) for p in PAIRS)
            raise UsageError(f"--data {data}: holds {', '.join(arrays)}; name its arrays {wanted}")
        features, labels = arrays[pair[0]], arrays[pair[1]]
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"--data {data}: cannot be read ({error}); write it with numpy.savez") from None
    if features.ndim < 2 or labels.shape != features.shape[:1] or len(labels) < 20:
        raise UsageError(
            f"--data {data}: {pair[0]} has shape {features.shape}, {pair[1]} {labels.shape}; "
            "give at least 20 rows of features and one label for each"
        )
    _check_classes(data, len(np.unique(labels)), len(labels))
    return {"features": pair[0], "labels": pair[1]}


def _check_classes(data: Path, classes: int, rows: int) -> None:
    if not 2 <= classes <= min(MOST_CLASSES, rows / 2):
        raise UsageError(
            f"--data {data}: {classes} different labels in {rows} rows; a classifier needs from 2 to "
            f"{MOST_CLASSES}, and several rows of each"
        )


def _make(folder: Path, config: NewWorkloadConfig, parts: dict[str, str]) -> Start:
    """Writes the files twice: with placeholders to try them, then with what was found."""
    if config.data is not None:
        shutil.copyfile(config.data, folder / parts["file"])
    (folder / MODEL_FILE).write_text(_model_text(config, parts), encoding="utf-8")
    # The first time it is only read: the samples are not known yet.
    spec = folder / SPEC_FILE
    draft = {"batch_size": 1, "samples_per_epoch": 0, "samples": 0, "sample_bytes": 1}
    placeholder = Start(0.1, 1.0, 1, 1e-6, 0.0, 1e-6)
    spec.write_text(_spec_text(folder, config, parts, draft, placeholder), encoding="utf-8")
    samples = load_workload(str(folder)).samples
    batch = max(1, min(BATCH_MOST, samples // PUSHES))
    bytes_each = _sample_bytes(folder)
    sizes = {
        "batch_size": batch,
        "samples_per_epoch": samples // batch * batch,
        "samples": samples,
        "sample_bytes": bytes_each,
    }
    spec.write_text(_spec_text(folder, config, parts, sizes, placeholder), encoding="utf-8")
    workload = load_workload(str(folder))
    workload.check()
    start = find_start(workload)
    spec.write_text(_spec_text(folder, config, parts, sizes, start), encoding="utf-8")
    try:
        load_workload(str(folder)).check()
    except WorkloadError as error:
        raise AssertionError(f"the skeleton breaks its own contract: {error}") from error
    return start


def _sample_bytes(folder: Path) -> int:
    data = load_workload(str(folder)).dataset
    return int(data.train_features[:1].nbytes + 1)


def _model_text(config: NewWorkloadConfig, parts: dict[str, str]) -> str:
    imports = ["import numpy as np"]
    standard = ["import csv"] if parts["load"] == "load_csv" else []
    standard += ["from pathlib import Path"] if parts["file"] else []
    if config.adapter == "torch":
        imports.append("from torch import nn")
    first = "\n".join([*standard, *([""] if standard else []), *imports]) + "\n"
    needs = "numpy and torch" if config.adapter == "torch" else "numpy alone"
    about = f'"""The data and the model; needs {needs}, and runs unchanged inside a function."""\n\n'
    load = Template(_template(parts["load"])).safe_substitute(parts)
    return about + first + load + _template(f"{config.adapter}_model")


def _spec_text(
    folder: Path, config: NewWorkloadConfig, parts: dict[str, str], sizes: dict[str, int], start: Start
) -> str:
    import_s, runtime_mb, package_mb = RUNTIMES[config.adapter]
    title = "a model of my own" if config.data is None else f"a model of my own on {config.data.name}"
    return Template(_template("workload.toml")).substitute(
        sizes,
        folder=f"./{folder.name}",
        title=title.replace('"', "'"),
        settings=parts["settings"],
        heldout=parts["heldout"],
        adapter=config.adapter,
        builder="Model" if config.adapter == "numpy" else "build",
        target_loss=f"{start.target_loss:g}",
        epochs=counted(start.epochs, "epoch"),
        learning_rate=f"{start.learning_rate:g}",
        rates=", ".join(f"{rate:g}" for rate in RATES),
        seconds_per_sample=f"{start.seconds_per_sample:.3g}",
        seconds_per_push=f"{start.seconds_per_push:.3g}",
        evaluate_seconds_per_sample=f"{start.evaluate_seconds_per_sample:.3g}",
        import_s=import_s,
        runtime_mb=runtime_mb,
        package_mb=package_mb,
        measured=f"one thread of this machine, {datetime.now(UTC):%Y-%m-%d}, siren.new_workload",
    )


def _template(name: str) -> str:
    return (TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(NewWorkloadConfig, prog="python -m siren.new_workload")))
