"""Reading large text files by blocks of lines."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

BLOCK_ROWS = 50_000


def open_binary(path: Path) -> IO[bytes]:
    """The file, decompressed if its name ends in .gz."""
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def blocks(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    """The lines in lists of at most `BLOCK_ROWS`."""
    while block := list(itertools.islice(lines, BLOCK_ROWS)):
        yield block
