"""Reading one JSON object field by field: type, range, and nothing unknown."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

_SHOWN = 60
_SETTINGS_DEPTH = 8
_SETTINGS_VALUES = 10_000


class MessageError(ValueError):
    """A task, a status or a stored object that is not what it must be; nothing was done with it."""


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


class Fields:
    """Takes the fields of a JSON object one by one.

    Args:
        value: What was received.
        name: What it is called in errors.

    Raises:
        MessageError: It is no object with text keys.
    """

    def __init__(self, value: object, name: str) -> None:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise MessageError(f"{name} is {_show(value)}: send a JSON object")
        self._left: dict[str, Any] = dict(value)
        self._name = name

    def take(self, field: str) -> Any:
        """The value of a field, whatever it is.

        Raises:
            MessageError: It is missing.
        """
        if field not in self._left:
            raise MessageError(f"{self._name} lacks {field!r}: manager and worker must be of one version")
        return self._left.pop(field)

    def end(self) -> None:
        """Refuses fields that nobody took.

        Raises:
            MessageError: Names them.
        """
        if self._left:
            names = ", ".join(sorted(map(_show, self._left))[:5])
            raise MessageError(
                f"{self._name} has the unknown field {names}: manager and worker must be of one version"
            )

    def protocol(self, expected: int) -> None:
        """Refuses another version of the messages.

        Raises:
            MessageError: Names both.
        """
        found = self.take("protocol")
        if type(found) is not int or found != expected:
            raise MessageError(
                f"{self._name} speaks protocol {_show(found)}, this side {expected}: "
                "deploy the code package of this version of Siren"
            )

    def integer(self, field: str, low: int, high: int) -> int:
        """An integer in [low, high]; a boolean is none."""
        value = self.take(field)
        if type(value) is not int or not low <= value <= high:
            self._refuse(field, value, f"an integer in [{low}, {high}]")
        return int(value)

    def optional_integer(self, field: str, low: int, high: int) -> int | None:
        """An integer in [low, high], or None."""
        if self._left.get(field, 0) is None:
            self.take(field)
            return None
        return self.integer(field, low, high)

    def number(self, field: str, low: float, high: float) -> float:
        """A finite number in [low, high]."""
        value = self.take(field)
        if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
            self._refuse(field, value, f"a finite number in [{low:g}, {high:g}]")
        return float(value)

    def flag(self, field: str) -> bool:
        """True or false."""
        value = self.take(field)
        if type(value) is not bool:
            self._refuse(field, value, "true or false")
        return bool(value)

    def text(self, field: str, pattern: str) -> str:
        """Text that matches the whole of a regular expression."""
        value = self.take(field)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            self._refuse(field, value, f"text of the form {pattern}")
        return str(value)

    def optional_text(self, field: str, pattern: str) -> str | None:
        """Text that matches a regular expression, or None."""
        if self._left.get(field, "") is None:
            self.take(field)
            return None
        return self.text(field, pattern)

    def choice(self, field: str, known: Collection[str]) -> str:
        """One of the known names."""
        value = self.take(field)
        if not isinstance(value, str) or value not in known:
            self._refuse(field, value, f"one of {', '.join(sorted(known))}")
        return str(value)

    def shape(self, field: str) -> tuple[int, ...]:
        """The shape of an array of at most 8 dimensions and 2**31 values."""
        value = self.take(field)
        good = isinstance(value, list) and len(value) <= 8 and all(type(n) is int and n >= 1 for n in value)
        if not good or math.prod(value) > 2**31:
            self._refuse(field, value, "a list of positive integers, the shape of one row")
        return tuple(value)

    def runs(self, field: str, most: int) -> tuple[int, ...]:
        """Positive integers that were written as [value, repetitions] pairs; at most `most` of them."""
        value = self.take(field)
        good = isinstance(value, list) and all(
            isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and 1 <= n < 2**31 for n in pair)
            for pair in value
        )
        if not good or not 1 <= sum(pair[1] for pair in value) <= most:
            self._refuse(field, value, f"a list of [samples, pushes] pairs of at most {most} pushes")
        return tuple(size for size, count in value for _ in range(count))

    def settings(self, field: str) -> dict[str, Any]:
        """Keyword arguments: names to JSON values of bounded depth and number."""
        value = self.take(field)
        names = isinstance(value, dict) and all(isinstance(k, str) and k.isidentifier() for k in value)
        if not names or not _is_plain(value):
            self._refuse(field, value, "an object of keyword arguments with finite JSON values")
        return dict(value)

    def _refuse(self, field: str, value: object, expected: str) -> None:
        raise MessageError(f"{field} of {self._name} is {_show(value)}: it must be {expected}")


def _is_scalar(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (str, bool, int))


def _is_plain(value: object) -> bool:
    """Whether it is JSON of bounded depth and number of values, all finite."""
    level, total = [value], 0
    for _ in range(_SETTINGS_DEPTH):
        deeper: list[object] = []
        for item in level:
            if isinstance(item, dict):
                deeper += [*item.values()]
                if not all(isinstance(key, str) for key in item):
                    return False
            elif isinstance(item, list):
                deeper += item
            elif not _is_scalar(item):
                return False
        total += len(deeper)
        if total > _SETTINGS_VALUES:
            return False
        if not deeper:
            return True
        level = deeper
    return False
