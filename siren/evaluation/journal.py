"""The folder of an evaluation: what was asked for, and every episode as soon as it has ended.

`evaluation.json` has the settings, `cases.jsonl` what was found out about every job at every budget,
`episodes.jsonl` a line an episode. A process that is killed loses nothing but what was under way; a torn
last line is cut off.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from siren.analysis._disk import Disk
from siren.errors import RunFolderError, UsageError
from siren.evaluation.baseline import Baseline
from siren.evaluation.case import CaseFacts, CaseKey

SETTINGS, CASES, EPISODES, LOCK = "evaluation.json", "cases.jsonl", "episodes.jsonl", "lock"


@dataclass(frozen=True)
class Result:
    """One episode.

    Attributes:
        case: Which case, by its number.
        policy: As in the report.
        seed: Its seed.
        success: Whether the target was reached.
        time_s, cost_usd, overspent_usd, epochs: How it went.
        stop_reason: Why it ended.
    """

    case: int
    policy: str
    seed: int
    success: bool
    time_s: float
    cost_usd: float
    overspent_usd: float
    epochs: int
    stop_reason: str


class Journal:
    """The folder of an evaluation, held by this process.

    Attributes:
        path: The folder.
        facts: What is known of cases, by number.
        results: Every episode so far.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._disk = Disk()
        self.facts: dict[int, CaseFacts] = {}
        self.results: list[Result] = []

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, settings: Mapping[str, Any], system: Mapping[str, Any]) -> Iterator[Journal]:
        """Begins an evaluation in a folder, or goes on with the one that is there.

        Args:
            path: The folder.
            settings: What decides the numbers, as JSON.
            system: What it runs on, for the record.

        Raises:
            UsageError: The folder holds something else, or an evaluation with other settings.
            RunFolderError: It cannot be written, is damaged, or another process is at work in it.
        """
        journal = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            with journal._lock():
                journal._begin(settings, system)
                yield journal
        except OSError as error:
            raise RunFolderError(
                f"cannot write {error.filename or path}: {error.strerror}; free space or choose another --out"
            ) from error

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.path / LOCK).open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunFolderError(
                    f"another evaluation is at work in {self.path}: wait for it, or choose another --out"
                ) from None
            yield

    def _begin(self, settings: Mapping[str, Any], system: Mapping[str, Any]) -> None:
        about = self.path / SETTINGS
        if not about.exists():
            if any(child.name != LOCK for child in self.path.iterdir()):
                (self.path / LOCK).unlink()
                raise UsageError(f"--out {self.path} is taken: name a folder that does not exist yet")
            for name in (CASES, EPISODES):
                (self.path / name).touch()
            content = {"settings": settings, "system": system}
            self._disk.replace(about, json.dumps(content, indent=2).encode() + b"\n")
            return
        known = _parsed(about, about.read_text(encoding="utf-8")).get("settings", {})
        changed = sorted(k for k in {*known, *settings} if known.get(k) != settings.get(k))
        if changed:
            names = " and ".join(
                "Siren's code" if k == "code" else f"--{k}".replace("_", "-") for k in changed
            )
            raise UsageError(
                f"--out {self.path} holds an evaluation with another {names}: repeat its arguments to go on "
                "with it, or name a new folder"
            )
        for line in self._lines(CASES):
            self.facts[line["case"]] = _facts_of(line)
        self.results = [Result(**line) for line in self._lines(EPISODES)]

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        self._disk.cut_torn_line(path)
        return [_parsed(path, line) for line in path.read_text(encoding="utf-8").splitlines()]

    def add_facts(self, number: int, key: CaseKey, facts: CaseFacts) -> None:
        """Keeps what was found out about a case."""
        line = {"case": number, "key": asdict(key), **asdict(facts), "budget_usd": str(facts.budget_usd)}
        self._append(CASES, [line])
        self.facts[number] = facts

    def add_results(self, results: list[Result]) -> None:
        """Keeps episodes."""
        self._append(EPISODES, [asdict(result) for result in results])
        self.results += results

    def _append(self, name: str, lines: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        self._disk.append(self.path / name, text.encode())

    def write(self, name: str, data: bytes) -> Path:
        """Writes a file of the report; its path."""
        path = self.path / name
        self._disk.replace(path, data)
        return path


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged ({error}): start in a new folder") from error
    if not isinstance(value, dict):
        raise RunFolderError(f"{path} is damaged: start in a new folder")
    return value


def _facts_of(line: Mapping[str, Any]) -> CaseFacts:
    return CaseFacts(
        budget_usd=Decimal(line["budget_usd"]),
        baseline=Baseline(**line["baseline"]),
        bound_s=line["bound_s"],
        bound_failure_s=line["bound_failure_s"],
        rules=(line["rules"][0], line["rules"][1]),
        world=line["world"],
    )
