"""Tables of what files may hold, from the pydantic models that read them."""

from __future__ import annotations

import types
import typing
from enum import Enum
from typing import Any, Literal

import docstring_parser
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from siren.workloads.spec import WorkloadSpec

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def workload() -> str:
    """The fields of `workload.toml`, section by section."""
    top = "`title`\n: One line that says what is trained."
    sections = [
        f"## `[{name}]`\n\n{_summary(field.annotation)}\n\n{table(field.annotation)}"
        for name, field in WorkloadSpec.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    ]
    return "\n\n".join([top, *sections])


def table(model: type[BaseModel]) -> str:
    """The fields of one section."""
    about = meanings(model)
    rows = [
        f"| `{name}` | {_kind(field)} | {_default(field)} | {cell(about[name])} |"
        for name, field in model.model_fields.items()
    ]
    return "\n".join(["| field | value | default | meaning |", "|---|---|---|---|", *rows])


def meanings(model: type) -> dict[str, str]:
    """What a class docstring says of each attribute."""
    found = {}
    for item in docstring_parser.parse(model.__doc__ or "").params:
        for name in item.arg_name.split(","):
            found[name.strip()] = " ".join((item.description or "").split())
    return found


def cell(text: str) -> str:
    """Text as a cell of a table takes it."""
    return text.replace("|", "\\|")


def _summary(model: type) -> str:
    return docstring_parser.parse(model.__doc__ or "").short_description or ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    value = value.value if isinstance(value, Enum) else value
    return "none" if value in ({}, (), None) else f"`{value}`"


def _kind(field: FieldInfo) -> str:
    limits = [
        f"{_SIGNS[name]} {getattr(rule, name):g}"
        for rule in field.metadata
        for name in _SIGNS
        if hasattr(rule, name)
    ]
    return ", ".join([_type(field.annotation), *limits])


def _type(kind: Any) -> str:
    """A type in words."""
    if typing.get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_type(part) for part in typing.get_args(kind))
    names = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}
    if kind in names:
        return names[kind]
    return {dict: "table", tuple: "list", list: "list"}[typing.get_origin(kind)]
