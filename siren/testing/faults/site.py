"""Servers that outlive a run, as an account at AWS does: `--platform local` over a site that is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from siren.platforms.backend import Backend
from siren.platforms.manager.site import Grounds


class GivenSite:
    """See `siren.platforms.manager.site.Site`; nothing is started, and nothing ended.

    Args:
        grounds: What is there already.
    """

    name = "local"
    spends_money = False

    def __init__(self, grounds: Grounds) -> None:
        self._grounds = grounds

    def check(self) -> None:
        """See `Site.check`: it is there."""

    def open(self) -> Grounds:
        """See `Site.open`."""
        return self._grounds

    def facts(self) -> Mapping[str, Any]:
        """See `Site.facts`."""
        return {}

    def close(self) -> None:
        """See `Site.close`: it stays."""


@contextmanager
def local_platform_over(grounds: Grounds) -> Iterator[None]:
    """Meanwhile `--platform local` starts no servers and runs over these."""
    with patch("siren.platforms.select.LocalSite", lambda *args, **kwargs: GivenSite(grounds)):
        yield


def grounds_to_json(grounds: Grounds) -> dict[str, Any]:
    """As JSON, credentials included."""
    return {"backend": vars(grounds.backend), "code_sha256": grounds.code_sha256}


def grounds_from_json(value: Mapping[str, Any]) -> Grounds:
    """What `grounds_to_json` returned."""
    fields = dict(value["backend"])
    if fields["credentials"]:
        fields["credentials"] = tuple(fields["credentials"])
    return Grounds(Backend(**fields), value["code_sha256"])
