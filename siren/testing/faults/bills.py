"""What a local endpoint billed, read from its own log files and not through the function manager."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_REPORT = re.compile(
    r"^REPORT RequestId: (\S+)\t.*\tBilled Duration: (\d+) ms\tMemory Size: (\d+) MB\t", re.MULTILINE
)


@dataclass(frozen=True)
class Billed:
    """Invocations that ended.

    Attributes:
        invocations: How many.
        least_mb_ms, most_mb_ms: Billed milliseconds times memory, of one delivery of each request. They
            differ if one was delivered twice: nobody outside knows which of them was answered.
        all_mb_ms: Of every delivery.
    """

    invocations: int
    least_mb_ms: int
    most_mb_ms: int
    all_mb_ms: int


class BillReader:
    """Reads the bills of a function's log since it was last asked.

    Args:
        logs: The endpoint's folder of logs.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._read: dict[Path, int] = {}

    def since(self) -> Billed:
        """What was billed since the last call."""
        requests: dict[str, list[int]] = {}
        for path in sorted(self._logs.glob("*/*.log")):
            content = path.read_bytes()
            new = content[self._read.get(path, 0) :].decode(errors="replace")
            self._read[path] = len(content)
            for request, billed_ms, memory_mb in _REPORT.findall(new):
                requests.setdefault(request, []).append(int(billed_ms) * int(memory_mb))
        bills = requests.values()
        return Billed(sum(map(len, bills)), sum(map(min, bills)), sum(map(max, bills)), sum(map(sum, bills)))
