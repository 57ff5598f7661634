"""Names that every service takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.errors import UsageError
from siren.platforms.aws.names import NAME_LENGTH, Names, check_name


@pytest.mark.parametrize("name", ["siren", "a", "team-7-siren", "x" * NAME_LENGTH])
def test_good_names_pass(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "Siren", "7up", "a--b", "a-", "-a", "a_b", "a.b", "x" * 25, "a\n", "ä"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="use at most 24 small letters"):
        check_name(name)


@given(st.from_regex(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", fullmatch=True).filter(lambda s: len(s) <= NAME_LENGTH))
def test_names_keep_every_services_limits(name: str) -> None:
    names = Names(check_name(name), "ap-southeast-2", "123456789012")
    assert 3 <= len(names.bucket) <= 63
    assert len(names.role) <= 64
    assert len(names.function) <= 64
    assert len(names.cache) <= 40
    assert names.cache == names.cache.lower()
    assert names.log_group_arn.endswith(f":log-group:/aws/lambda/{names.function}")
