"""Bytes and ages as people read them. GiB exists only here, money in `sizewright_catalog.money`."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sizewright.v1 import estimate_pb2

_GIB = 1024**3
_MIB = 1024**2
_KIB = 1024


def gib(size_bytes: int) -> str:
    """A size in GiB without its unit, with three significant digits from 1 GiB to 1 TiB."""
    value = size_bytes / _GIB
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def size(size_bytes: int) -> str:
    """A size with the unit that shows it best."""
    if abs(size_bytes) >= _GIB // 10:
        return f"{gib(size_bytes)} GiB"
    if abs(size_bytes) >= _MIB // 10:
        return f"{size_bytes / _MIB:.1f} MiB"
    if abs(size_bytes) >= _KIB:
        return f"{size_bytes / _KIB:.1f} KiB"
    return f"{size_bytes} B"


def interval(span: estimate_pb2.ByteRange) -> str:
    """A range as "24.2 GiB (23.4 to 26.9)", or the one size where there is no doubt."""
    if span.low_bytes == span.high_bytes:
        return size(span.best_bytes)
    return f"{size(span.best_bytes)} ({gib(span.low_bytes)} to {gib(span.high_bytes)})"


def age(span: Duration) -> str:
    """How old something is, in its largest whole unit."""
    if span.seconds >= 2 * 86400:
        return f"{span.seconds // 86400} days old"
    if span.seconds >= 86400:
        return "1 day old"
    return "today's" if span.seconds < 3600 else f"{span.seconds // 3600} h old"


def day(moment: Timestamp) -> str:
    """The day of a moment, in UTC."""
    return moment.ToDatetime().strftime("%Y-%m-%d")


def moment(when: Timestamp) -> str:
    """A moment to the minute, in UTC."""
    return when.ToDatetime().strftime("%Y-%m-%d %H:%M")


def span(length: Duration) -> str:
    """A length of time in its largest whole unit."""
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if length.seconds >= seconds:
            return f"{length.seconds // seconds} {unit}"
    return f"{length.seconds} s"


def count(number: int) -> str:
    """A count with thousands marks."""
    return f"{number:,}"


def parameters(number: int) -> str:
    """A parameter count in the unit people use."""
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)


def printable(text: str) -> str:
    """Text from outside without what would steer a terminal."""
    return "".join(
        " " if letter.isspace() else letter if letter.isprintable() else "?" for letter in text
    )
