"""Epoch records and run summaries as JSON, without losing a digit.

Dollars are `Decimal` and become exact JSON numbers (simplejson writes every digit); they are read
back as `Decimal`, every other number as `float` or `int`. A loss that is not finite becomes `null`
and is read back as NaN: strict JSON has no NaN.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias, cast

import simplejson

from siren.errors import RunFolderError
from siren.types import EpochRecord, RunHeader, RunSummary

JSON: TypeAlias = bool | int | float | Decimal | str | list[Any] | Mapping[str, Any] | None
"""What config, system facts and checkpoint states are made of; `Decimal` only where money is."""

_RENAMED = {"folder": "run_folder"}
"""Header fields that are called something else in the flat summary."""

# fmt: off
_SUMMARY_KEYS = (
    "workload", "title", "dataset", "world", "platform", "policy", "batch_rule", "update_rule", "channel",
    "seed", "budget_usd", "cost_usd", "bill", "target_loss", "initial_loss", "final_loss", "final_accuracy",
    "best_loss", "best_epoch", "target_reached", "epochs", "max_epochs", "duration_s", "wall_s",
    "stop_reason", "stop_detail", "exit_code", "run_folder", "spends_money", "notes",
)
# fmt: on


def record_to_json(record: EpochRecord) -> dict[str, Any]:
    """Return the record as nested dictionaries, lists and numbers for `to_text`."""
    return cast(dict[str, Any], _encode(EpochRecord, record, "record"))


def record_from_json(obj: object) -> EpochRecord:
    """Return the record that `record_to_json` made `obj` of.

    Args:
        obj: Parsed by `parse` (or with `use_decimal=True`), so that money is exact.

    Raises:
        RunFolderError: `obj` is not a record; the message names the key.
    """
    return cast(EpochRecord, _decode(EpochRecord, obj, ""))


def summary_to_json(summary: RunSummary) -> dict[str, Any]:
    """Return the summary as one flat dictionary, the header's fields included."""
    nested = _encode(RunSummary, summary, "summary")
    header = {_RENAMED.get(key, key): value for key, value in nested.pop("header").items()}
    if summary.comparison is None:
        del nested["comparison"]
    derived = {
        "target_reached": summary.target_reached,
        "exit_code": summary.stop_reason.exit_code,
    }
    flat = header | nested | derived
    # A field that types.py gains later is appended rather than lost.
    order = [*_SUMMARY_KEYS, *(key for key in flat if key not in _SUMMARY_KEYS)]
    return {key: flat[key] for key in order}


def summary_from_json(obj: object) -> RunSummary:
    """Return the summary that `summary_to_json` made `obj` of.

    Raises:
        RunFolderError: `obj` is not a summary; the message names the key.
    """
    if not isinstance(obj, Mapping):
        raise RunFolderError(f"expected an object, got {_shown(obj)}")
    flat = {"comparison": None, **obj}
    derived = {key: flat.pop(key, None) for key in ("target_reached", "exit_code")}
    header = {}
    for key in _hints(RunHeader):
        name = _RENAMED.get(key, key)
        if name in flat:
            header[key] = flat.pop(name)
    summary = cast(RunSummary, _decode(RunSummary, {"header": header, **flat}, ""))
    expected = {"target_reached": summary.target_reached, "exit_code": summary.stop_reason.exit_code}
    for key, value in derived.items():
        if value != expected[key]:
            raise RunFolderError(
                f"{key}: {_shown(value)} does not follow from stop_reason {summary.stop_reason.value!r}"
            )
    return summary


def to_text(obj: object, indent: int | None = None, strict: bool = True) -> str:
    """Return `obj` as JSON text in ASCII, `Decimal`s as exact numbers.

    Args:
        obj: JSON values and `Decimal`.
        indent: Spaces per level; None for one line.
        strict: Refuse floats that are not finite, which JSON has no word for.

    Raises:
        ValueError: A float is not finite, and `strict`.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    return simplejson.dumps(obj, use_decimal=True, allow_nan=not strict, indent=indent, separators=separators)


def parse(text: str | bytes, strict: bool = True) -> Any:
    """Return the JSON value of `text`, numbers with a point or an exponent as `Decimal`.

    Args:
        text: JSON, in UTF-8 where it is bytes.
        strict: Refuse NaN and infinities.

    Raises:
        RunFolderError: `text` is not such JSON.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return simplejson.loads(text, use_decimal=True, allow_nan=not strict)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise RunFolderError(f"not valid JSON: {error}") from error


def by_name(value: Any, key: str = "") -> Any:
    """Return a parsed value with its numbers typed by their names.

    Numbers whose key ends in `_usd`, or that stand below such a key or below `bill`, stay
    `Decimal`; all others become `float` or `int`.
    """
    if isinstance(value, Mapping):
        return {k: by_name(v, key if _is_money(key) else k) for k, v in value.items()}
    if isinstance(value, list):
        return [by_name(v, key) for v in value]
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return value
    if _is_money(key):
        return Decimal(value)
    return float(value) if isinstance(value, Decimal) else value


def _is_money(key: str) -> bool:
    return key.endswith("_usd") or key == "bill"


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _encode(hint: Any, value: Any, where: str) -> Any:
    """Return `value`, declared as `hint`, as JSON; numpy's numbers become Python's."""
    if dataclasses.is_dataclass(hint):
        fields = _hints(cast(type, hint))
        return {k: _encode(h, getattr(value, k), f"{where}.{k}") for k, h in fields.items()}
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return [_encode(args[0], v, where) for v in value]
    if origin is Mapping:
        return {str(k): _encode(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin is types.UnionType:
        return None if value is None else _encode(_some(args), value, where)
    if hint is float:
        return float(value) if math.isfinite(value) else None
    if hint is Decimal:
        if not isinstance(value, Decimal) or not value.is_finite():
            raise ValueError(f"{where} must be a finite Decimal, not {value!r}")
        return value
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        return hint(value).value
    if hint in (int, bool, str):
        return hint(value)
    raise TypeError(f"{where}: no JSON form for {hint}")  # pragma: no cover - a new kind of field


def _decode(hint: Any, value: Any, where: str) -> Any:
    """Return the JSON `value` as what `hint` declares, or raise RunFolderError at `where`."""
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(cast(type, hint), value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        _require(isinstance(value, list), "a list", value, where)
        return tuple(_decode(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is Mapping:
        _require(isinstance(value, Mapping), "an object", value, where)
        return {k: _decode(args[1], v, _join(where, k)) for k, v in value.items()}
    if origin is types.UnionType:
        return None if value is None else _decode(_some(args), value, where)
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        known = ", ".join(member.value for member in hint)
        _require(isinstance(value, str) and value in [m.value for m in hint], f"one of {known}", value, where)
        return hint(value)
    return _SCALARS[hint](value, where)


def _decode_dataclass(cls: type, value: Any, where: str) -> Any:
    _require(isinstance(value, Mapping), "an object", value, where)
    hints = _hints(cls)
    missing = [_join(where, key) for key in hints if key not in value]
    unknown = [_join(where, key) for key in value if key not in hints]
    if missing or unknown:
        said = [f"missing {', '.join(missing)}"] if missing else []
        said += [f"unknown {', '.join(unknown)}"] if unknown else []
        raise RunFolderError(f"wrong keys: {'; '.join(said)}")
    return cls(**{key: _decode(hint, value[key], _join(where, key)) for key, hint in hints.items()})


def _decode_float(value: Any, where: str) -> float:
    if value is None:
        return math.nan
    number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    _require(number, "a number", value, where)
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    _require(math.isfinite(result), "a finite number", value, where)
    return result


def _decode_int(value: Any, where: str) -> int:
    _require(isinstance(value, int) and not isinstance(value, bool), "a whole number", value, where)
    return cast(int, value)


def _decode_decimal(value: Any, where: str) -> Decimal:
    exact = isinstance(value, int | Decimal) and not isinstance(value, bool)
    _require(exact, "an exact number of dollars (int or Decimal)", value, where)
    return Decimal(value)


def _decode_bool(value: Any, where: str) -> bool:
    _require(isinstance(value, bool), "true or false", value, where)
    return cast(bool, value)


def _decode_str(value: Any, where: str) -> str:
    _require(isinstance(value, str), "a string", value, where)
    return cast(str, value)


_SCALARS: dict[Any, Callable[[Any, str], Any]] = {
    float: _decode_float,
    int: _decode_int,
    Decimal: _decode_decimal,
    bool: _decode_bool,
    str: _decode_str,
}


def _some(args: tuple[Any, ...]) -> Any:
    """The type X of `X | None`."""
    return next(arg for arg in args if arg is not types.NoneType)


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _require(condition: bool, wanted: str, value: object, where: str) -> None:
    if not condition:
        raise RunFolderError(f"{where + ': ' if where else ''}expected {wanted}, got {_shown(value)}")
