"""`python -m siren`: the same as the console script `siren`."""

from __future__ import annotations

import sys

from siren.cli import main

if __name__ == "__main__":
    sys.exit(main())
