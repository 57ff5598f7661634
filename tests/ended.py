"""Whether processes are gone."""

import time
from pathlib import Path


def ended(pids: list[int]) -> bool:
    """Whether all of them are gone; those that nobody has waited for count as gone."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        states = [Path(f"/proc/{pid}/stat") for pid in pids]
        if all(not s.exists() or s.read_text().rpartition(")")[2].split()[0] == "Z" for s in states):
            return True
        time.sleep(0.02)
    return False
