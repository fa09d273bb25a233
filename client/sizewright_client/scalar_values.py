"""One scalar of a request file to the value of one field, by the field's type."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from sizewright_client.field_names import Unit, unknown_choice
from sizewright_client.nodes import Scalar
from sizewright_client.quantities import (
    byte_count,
    nano_dollars,
    number,
    shown,
    span_nanoseconds,
    whole_number,
)

_LARGEST_DOUBLE_EXPONENT = 308
_DURATION_LIMIT_SECONDS = 315_576_000_000


def value_of(field: FieldDescriptor, scalar: Scalar, unit: Unit) -> Any:
    """The value for a field that is no message. Raises ValueError with what would be right."""
    kind = field.cpp_type
    if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64):
        return _integer(field, scalar.text, unit)
    if kind == FieldDescriptor.CPPTYPE_DOUBLE:
        return share_or_number(scalar.text)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return _truth(scalar.text)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        assert field.enum_type is not None
        return enum_number(field.enum_type, scalar.text)
    return plain_text(scalar.text)


def _integer(field: FieldDescriptor, text: str, unit: Unit) -> int:
    bits = 32 if field.cpp_type == FieldDescriptor.CPPTYPE_INT32 else 64
    limit = 2 ** (bits - 1)
    try:
        if unit == "dollars":
            value = nano_dollars(text)
        elif unit == "bytes" and not text.lstrip("+-").replace("_", "").isdecimal():
            value = byte_count(text)
        else:
            value = whole_number(text)
    except ValueError as error:
        if "out of range" not in str(error):
            raise
        value = limit
    if not -limit <= value < limit:
        largest = f"${(limit - 1) // 10**9}" if unit == "dollars" else str(limit - 1)
        raise ValueError(f"{shown(text)} is out of range; the largest is {largest}")
    return value


def share_or_number(text: str) -> float:
    """A number, or a share in percent: 0.1 and 10% are the same."""
    percent = text.endswith("%")
    value = number(text.removesuffix("%").strip() if percent else text)
    if value.adjusted() >= _LARGEST_DOUBLE_EXPONENT:
        raise ValueError(f"{shown(text)} is out of range")
    return float(value / 100 if percent else value)


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"must be true or false, not {shown(text)}")
    return text == "true"


def plain_text(text: str) -> str:
    """The text itself. Raises ValueError where it is no Unicode text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be Unicode text; it holds half a surrogate pair") from None
    return text


@cache
def enum_names(enum: EnumDescriptor) -> dict[str, int]:
    """The values of an enum by kebab-case name, without the enum's prefix and the unset value."""
    prefix = "".join(
        "_" + letter if letter.isupper() else letter.upper() for letter in enum.name
    ).lstrip("_")
    return {
        value.name.removeprefix(prefix + "_").lower().replace("_", "-"): value.number
        for value in enum.values
        if value.number != 0
    }


def enum_number(enum: EnumDescriptor, text: str) -> int:
    """The number of an enum value: `on-demand`, or the full name as proto3 JSON writes it."""
    names = enum_names(enum)
    if text in names:
        return names[text]
    if text in enum.values_by_name and enum.values_by_name[text].number != 0:
        return enum.values_by_name[text].number
    raise ValueError(unknown_choice(list(names), text))


def duration_parts(text: str) -> tuple[int, int]:
    """Seconds and nanoseconds of a span of time."""
    seconds, nanos = divmod(span_nanoseconds(text), 1_000_000_000)
    if seconds > _DURATION_LIMIT_SECONDS:
        raise ValueError(f"{shown(text)} is out of range; the longest is 3652500d")
    return seconds, nanos
