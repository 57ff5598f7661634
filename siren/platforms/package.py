"""The code package of a function: the worker, its channels, the workload's model and what they import.

siren/__init__.py             empty: the real one imports what a function does not have
siren/worker/*.py             the handler and its loop
siren/channels/*.py           where parameters travel
siren/hsp/{__init__,rules}.py
siren/{errors,types}.py, siren/workloads/...   with a torch model: its adapter
workload/model.py             and the siblings that it imports
numpy/, numpy.libs/           on AWS only; a local environment has its interpreter's own
redis/, hiredis/              the same

The same input gives the same bytes: names are sorted, times and modes fixed. Modules are packaged with
their bytecode where an interpreter of the target's version is at hand, because /var/task cannot be
written: without it every cold start compiles numpy again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import siren
from siren.errors import PlatformError, PriceError, WorkloadError
from siren.platforms.imports import folder_modules, needed_packages
from siren.platforms.wheels import Wheel, fetch_wheel
from siren.units import BYTES_PER_MB
from siren.workloads.spec_file import MODEL_FILE, load_spec

HANDLER = "siren.worker.handler.handler"
DIRECT_BYTES = 50 * BYTES_PER_MB
"""Largest zip that CreateFunction takes itself (AWS Lambda developer guide, quotas, 2026)."""
UNZIPPED_BYTES = 250 * BYTES_PER_MB
"""Largest unzipped package, 262,144,000 B (AWS Lambda developer guide, quotas, 2026)."""
IMAGE = "deploy/Dockerfile"
PROVIDED = frozenset({"boto3", "botocore", "hiredis", "numpy", "redis"})
"""Third-party packages that the worker has on AWS: the runtime's boto3, and what the package carries."""

TORCH_FILES = (
    "errors.py",
    "types.py",
    *(f"workloads/{name}.py" for name in ("__init__", "protocol", "spec", "torch_model", "workload")),
)
"""What `siren.workloads.torch_model` needs of Siren."""

_TRIMMED_FOLDERS = frozenset({"tests", "f2py", "include", "_pyinstaller"})
_TRIMMED_SUFFIXES = frozenset([".a", ".c", ".cpp", ".f", ".f90", ".h", ".lib", ".pxd", ".pyi", ".pyx"])
_TRIMMED_TESTS = re.compile(r"conftest\.py|_\w+_tests\.cpython-.*\.so")
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive can hold."""
_MODE = 0o100644
_COMPILE_S = 300.0
_MARKER = '"""Siren, as far as a function needs it."""\n'


@dataclass(frozen=True)
class Target:
    """What a package is built for.

    Attributes:
        runtime: Lambda's name of the Python, e.g. "python3.13".
        architecture: "x86" or "arm64", as world files say.
        wheels: What the package carries; nothing where the interpreter has it.
    """

    runtime: str
    architecture: str
    wheels: tuple[Wheel, ...] = ()

    @property
    def lambda_architecture(self) -> str:
        """The architecture as Lambda's API names it."""
        return "x86_64" if self.architecture == "x86" else self.architecture


@dataclass(frozen=True)
class Package:
    """A built code package.

    Attributes:
        content: The zip archive.
        unzipped_bytes: Size of its files.
        bytecode: Whether modules are compiled for the target.
        target: What it was built for.
    """

    content: bytes
    unzipped_bytes: int
    bytecode: bool
    target: Target

    @property
    def zipped_bytes(self) -> int:
        """Size of the archive."""
        return len(self.content)

    @property
    def sha256_base64(self) -> str:
        """What Lambda calls CodeSha256."""
        return base64.b64encode(hashlib.sha256(self.content).digest()).decode()

    @property
    def needs_s3(self) -> bool:
        """Whether it is too large to be sent with CreateFunction."""
        return self.zipped_bytes > DIRECT_BYTES

    @property
    def key(self) -> str:
        """Where it lies in the bucket, if it goes through S3."""
        return f"code/{hashlib.sha256(self.content).hexdigest()}.zip"


_REDIS = Wheel(
    "redis==8.1.0",
    "redis-8.1.0-py3-none-any.whl",
    "a4fe1aac3d3b3cc791d4b3d5931c5a956045dc951ee74d1c913ee3ac4d2ee9fb",
)
_HIREDIS = {
    "x86": Wheel(
        "hiredis==3.5.0",
        "hiredis-3.5.0-cp313-cp313-manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64.whl",
        "588d083aace7439afa652e201df7388aeb1a5d3230ffe26fb297cfc6c7f216de",
        "manylinux_2_28_x86_64",
        "3.13",
    ),
    "arm64": Wheel(
        "hiredis==3.5.0",
        "hiredis-3.5.0-cp313-cp313-manylinux2014_aarch64.manylinux_2_17_aarch64.manylinux_2_28_aarch64.whl",
        "e1170deb21494371005b4beb9451d904cf3adb2b8b62230b1c51f38267feedf3",
        "manylinux_2_28_aarch64",
        "3.13",
    ),
}
"""redis-py uses it where it is there: a model of 1,000,000 floats is read in a sixth of the CPU time
(experiments/bench/README.md)."""
_AWS_RUNTIME = "python3.13"
_NUMPY = {
    "x86": Wheel(
        "numpy==2.4.6",
        "numpy-2.4.6-cp313-cp313-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        "a7830bab239b79cda9c08c2da014761cafb48da6150e1da17ac06283f43b6089",
        "manylinux_2_28_x86_64",
        "3.13",
    ),
    "arm64": Wheel(
        "numpy==2.4.6",
        "numpy-2.4.6-cp313-cp313-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl",
        "72fbe16c6fac95aedf5937fa873445cec2110be35d8a4e9433d7501fd98dae6b",
        "manylinux_2_28_aarch64",
        "3.13",
    ),
}
"""Python 3.13 runs on Amazon Linux 2023 with glibc 2.34: newer numpy has no manylinux2014 wheels."""


def aws_target(architecture: str = "x86") -> Target:
    """The target on AWS: python3.13 with numpy, redis-py and hiredis in the package.

    Raises:
        PriceError: There is no such architecture.
    """
    if architecture not in _NUMPY:
        raise PriceError(f"Lambda has no architecture {architecture!r}: choose one of {', '.join(_NUMPY)}")
    return Target(_AWS_RUNTIME, architecture, (_NUMPY[architecture], _REDIS, _HIREDIS[architecture]))


def local_target(architecture: str = "x86") -> Target:
    """The target of local environments, which run this interpreter and have its packages."""
    return Target(_running(), architecture)


def build_package(workload_folder: Path, target: Target) -> Package:
    """The code package of a workload.

    Args:
        workload_folder: Holds `workload.toml` and `model.py`.
        target: What it is built for.

    Raises:
        WorkloadError: The workload cannot run from a package of this target: torch on AWS, an import
            that the package would not hold, more than 250 MB.
        PlatformError: A wheel cannot be fetched.
    """
    folder = workload_folder.resolve()
    torch = load_spec(folder).model.adapter == "torch"
    if target.wheels:
        _check_workload(folder, torch)
    files = {**_siren_files(TORCH_FILES if torch else ()), **_workload_files(folder)}
    for wheel in target.wheels:
        files |= _wheel_files(fetch_wheel(wheel))
    compiled = _bytecode(files, target.runtime)
    files |= compiled
    unzipped_bytes = sum(map(len, files.values()))
    if unzipped_bytes > UNZIPPED_BYTES:
        raise WorkloadError(
            f"the code package of {folder.name} has {unzipped_bytes:,} B unzipped, Lambda takes "
            f"{UNZIPPED_BYTES:,} B: leave files out of {folder}, or build a container image with {IMAGE}"
        )
    return Package(_zipped(files), unzipped_bytes, bool(compiled), target)


def _check_workload(folder: Path, torch: bool) -> None:
    """Refuses what would fail in the function for want of a package."""
    if torch:
        raise WorkloadError(
            f"{folder.name} needs torch, which alone is larger than the 250 MB of a code package: build a "
            f"container image with {IMAGE} (see deploy/README.md), or choose a workload of the numpy adapter"
        )
    unknown = sorted(needed_packages(folder / MODEL_FILE) - PROVIDED)
    if unknown:
        raise WorkloadError(
            f"{folder / MODEL_FILE} imports {unknown[0]}, which the code package does not hold: import it "
            f"inside the function that needs it if only the scheduler calls that, or build a container image "
            f"with {IMAGE}"
        )


def _siren_files(more: Sequence[str]) -> dict[str, bytes]:
    """The worker's part of Siren by its path in the package."""
    root = Path(siren.__file__).resolve().parent
    names = [path for part in ("worker", "channels") for path in sorted((root / part).glob("*.py"))]
    names += [root / name for name in ("hsp/__init__.py", "hsp/rules.py", *more)]
    files = {f"siren/{path.relative_to(root).as_posix()}": path.read_bytes() for path in names}
    return {"siren/__init__.py": _MARKER.encode(), **files}


def _workload_files(folder: Path) -> dict[str, bytes]:
    model = folder / MODEL_FILE
    return {
        f"workload/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in folder_modules(model)
    }


@cache
def _wheel_files(path: Path) -> Mapping[str, bytes]:
    """What a wheel installs, without what a function never reads: tests, headers, stubs, f2py."""
    with zipfile.ZipFile(path) as wheel:
        names = [info.filename for info in wheel.infolist() if not info.is_dir()]
        return {name: wheel.read(name) for name in names if _is_kept(PurePosixPath(name))}


def _is_kept(name: PurePosixPath) -> bool:
    if name.parts[0].endswith(".dist-info"):
        return "licenses" in name.parts or name.name == "METADATA"
    trimmed = _TRIMMED_FOLDERS.intersection(name.parts) or name.suffix in _TRIMMED_SUFFIXES
    return not trimmed and not _TRIMMED_TESTS.fullmatch(name.name)


def _bytecode(files: Mapping[str, bytes], runtime: str) -> dict[str, bytes]:
    """The modules compiled by an interpreter of the target's version; nothing if there is none here.

    Unchecked hash-based files (PEP 552) hold for the source whatever its time is. A fixed hash seed
    fixes the order of sets among the constants.
    """
    python = find_interpreter(runtime)
    if python is None:
        return {}
    with tempfile.TemporaryDirectory(prefix="siren-package-") as folder:
        root = Path(folder) / "task"
        for name, content in files.items():
            if name.endswith(".py"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(content)
        command = [python, "-s", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
        command += ["-s", str(root), "-p", "/var/task", str(root)]
        environment = {"PATH": os.defpath, "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_COMPILE_S,
            check=False,
            cwd=folder,
            env=environment,
        )
        if done.returncode:
            raise PlatformError(
                f"{runtime} cannot compile the code package: {' '.join(done.stdout.split())[:400]}; "
                "correct the file that it names"
            )
        compiled = sorted(root.rglob("*.pyc"))
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in compiled}


@cache
def find_interpreter(runtime: str) -> str | None:
    """A Python of the version that a runtime names: this one, or one on the PATH; None without one.

    A name on the PATH may be a shim that fails, so it is asked for its version.
    """
    if runtime == _running():
        return sys.executable
    found = shutil.which(runtime)
    if found is None:
        return None
    ask = [found, "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found if answer.stdout.strip() == runtime else None


def _running() -> str:
    return f"python{sys.version_info[0]}.{sys.version_info[1]}"


def _zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, on any machine: the mode counts
            info.external_attr = _MODE << 16
            archive.writestr(info, files[name])
    return buffer.getvalue()
