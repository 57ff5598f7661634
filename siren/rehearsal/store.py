"""What rehearsals found, kept for next time in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter, ValidationError

from siren import __version__
from siren.errors import DatasetError
from siren.rehearsal.rehearse import Rehearsal
from siren.twin.twin import job_of
from siren.workloads.datasets.cache import cache_folder, write_atomically
from siren.workloads.workload import Workload
from siren.worlds import World

log = logging.getLogger(__name__)

_REHEARSAL = TypeAdapter(Rehearsal)


def to_json(rehearsal: Rehearsal) -> dict[str, Any]:
    """The rehearsal as JSON."""
    found: dict[str, Any] = _REHEARSAL.dump_python(rehearsal, mode="json")
    return found


def from_json(kept: Mapping[str, Any]) -> Rehearsal:
    """What `to_json` returned."""
    return _REHEARSAL.validate_python(kept)


def resolved_job(workload: Workload, world: World) -> dict[str, Any]:
    """Everything that decides a job's course: its workload, its `model.py`, and its world, as JSON.

    `job` is the workload as the laws see it, sizes of model and data included.
    """
    return {
        "workload": workload.spec.model_dump(mode="json"),
        "job": asdict(job_of(workload)),
        "world": world.model_dump(mode="json"),
        "model.py": hashlib.sha256((workload.folder / "model.py").read_bytes()).hexdigest(),
    }


class Store:
    """The rehearsals of a job: one file for each budget, in `<cache>/rehearsals`.

    Args:
        workload: Name of the workload.
        resolved: Everything that decides the job's course; another job is another file.
        budget_usd: The budget.
        agents: The agents that may propose, with their `siren.policies.agent.agent_digest`.
    """

    def __init__(
        self, workload: str, resolved: Mapping[str, Any], budget_usd: Decimal, agents: Mapping[str, str]
    ) -> None:
        key = json.dumps([__version__, resolved, str(budget_usd.normalize()), agents], sort_keys=True)
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        self.path = cache_folder() / "rehearsals" / f"{workload}-{digest}.json"

    def load(self, seconds: float) -> Rehearsal | None:
        """The rehearsal that took at least about so long, or None."""
        try:
            found = _REHEARSAL.validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.info("%s cannot be read (%s): rehearsing again", self.path, error)
            return None
        return found if found.wall_s >= 0.5 * seconds else None

    def save(self, rehearsal: Rehearsal) -> None:
        """Keeps it; a folder that cannot be written is only logged, since nothing depends on it."""
        try:
            write_atomically(self.path, _REHEARSAL.dump_json(rehearsal, indent=1))
        except DatasetError as error:
            log.info("the rehearsal was not kept: %s", error)
