from __future__ import annotations

import subprocess
import sys

WITHOUT_MATPLOTLIB = """
import sys
sys.modules["matplotlib"] = sys.modules["matplotlib.pyplot"] = None
from siren.rehearsal.search import POPULATION, _strategy
strategy = _strategy([0.0, 0.0, 0.0])
for _ in range(30):
    weights = strategy.ask()
    assert len(weights) == POPULATION
    strategy.tell(weights, [float(((w - 0.2) ** 2).sum()) for w in weights])
print(float(abs(strategy.result.xfavorite - 0.2).max()))
"""


def test_the_search_works_and_says_nothing_where_matplotlib_is_missing():
    told = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", WITHOUT_MATPLOTLIB],
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stderr == ""
    assert float(told.stdout) < 0.1
