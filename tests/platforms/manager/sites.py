"""A site that several platforms share."""

from __future__ import annotations

from siren.platforms.local import LocalSite
from siren.platforms.manager.site import Grounds


class SharedSite:
    """A site that platforms may close without ending it."""

    name = "local"
    spends_money = False

    def __init__(self, site: LocalSite) -> None:
        self.site = site

    def check(self) -> None:
        self.site.check()

    def open(self) -> Grounds:
        return self.site.open()

    def facts(self) -> dict[str, object]:
        return dict(self.site.facts())

    def close(self) -> None:
        """It ends with the tests."""
