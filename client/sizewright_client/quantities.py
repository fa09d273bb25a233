"""What people write for sizes, spans of time, money and counts, as exact integers."""

from __future__ import annotations

import re
from decimal import Decimal

NANOS_PER_DOLLAR = 1_000_000_000
_NUMBER = r"[+-]?(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_PLAIN = re.compile(_NUMBER)
_WITH_UNIT = re.compile(rf"({_NUMBER})\s*([A-Za-z]+)")
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\s*")
# An exponent beyond this is out of every range; it is refused before it is multiplied out.
_EXPONENT_LIMIT = 40

_BYTE_UNITS = {"B": 1} | {
    prefix + infix + "B": base**power
    for power, prefix in enumerate("KMGTP", start=1)
    for infix, base in (("i", 1024), ("", 1000))
}
_BYTE_UNITS["kB"] = 1000
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_COUNT_UNITS = {"K": 10**3, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def number(text: str) -> Decimal:
    """The exact number that a text writes. Raises ValueError with what would be right."""
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"must be a number, not {shown(text)}")
    value = Decimal(text.replace("_", ""))
    if value and abs(value.adjusted()) > _EXPONENT_LIMIT:
        raise ValueError(f"{shown(text)} is out of range")
    return value


def whole_number(text: str) -> int:
    """The integer that a text writes, such as 52000, 52_000 or 5.2e4."""
    try:
        value = number(text)
    except ValueError as error:
        if "out of range" in str(error):
            raise
        raise ValueError(f"must be a whole number, not {shown(text)}") from None
    return _integral(value, text, "must be a whole number")


def byte_count(text: str) -> int:
    """Bytes of a size with its unit, such as 40GiB, 1.5 TiB or 80GB (decimal)."""
    match = _WITH_UNIT.fullmatch(text)
    factor = _BYTE_UNITS.get(match[2]) if match else None
    if match is None or factor is None:
        raise ValueError(
            "must be a size with its unit, such as 40GiB (binary) or 40GB (decimal), "
            f"not {shown(text)}"
        )
    return _integral(number(match[1]) * factor, text, "must be a whole number of bytes")


def span_nanoseconds(text: str) -> int:
    """Nanoseconds of a span of time, such as 30d, 12h, 1d12h or 90s."""
    total, position = Decimal(0), 0
    for match in _SPAN.finditer(text):
        if match.start() != position or match[2] not in _SECONDS:
            break
        total += number(match[1]) * _SECONDS[match[2]]
        position = match.end()
    if not text or position != len(text):
        raise ValueError(
            f"must be a span of time with its unit, such as 30d, 12h, 90m or 45s, not {shown(text)}"
        )
    return _integral(total * 1_000_000_000, text, "must be a whole number of nanoseconds")


def nano_dollars(text: str) -> int:
    """Nano-dollars of an amount in US dollars, such as 12.50 or $12.50, exactly."""
    try:
        value = number(text.removeprefix("$").strip())
    except ValueError as error:
        if "out of range" in str(error):
            raise
        raise ValueError(
            f"must be an amount in US dollars, such as 12.50, not {shown(text)}"
        ) from None
    return _integral(value * NANOS_PER_DOLLAR, text, "must have at most nine decimals")


def count_with_unit(text: str) -> int:
    """A count such as 8B, 350M or 8030261248 (decimal units)."""
    match = _WITH_UNIT.fullmatch(text)
    if match is None:
        return whole_number(text)
    if match[2] not in _COUNT_UNITS:
        raise ValueError(f"must be a count, such as 8B, 350M or 8030261248, not {shown(text)}")
    return _integral(number(match[1]) * _COUNT_UNITS[match[2]], text, "must be a whole number")


def shown(text: str) -> str:
    """A text as a message can show it: quoted, one line, short."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return repr(short)


def _integral(value: Decimal, text: str, otherwise: str) -> int:
    if value != value.to_integral_value():
        raise ValueError(f"{otherwise}, not {shown(text)}")
    return int(value)
