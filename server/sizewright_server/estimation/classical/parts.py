"""Parts of a classical estimate: sizes with their doubt, and the moments that hold them."""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_server.estimation.memory import ByteRange, Confidence, Part


@dataclass(frozen=True, slots=True)
class Doubt:
    """How far the truth may lie from a computed size, as shares of it."""

    low: float
    high: float
    confidence: Confidence


#: Arithmetic on a stated shape: only page rounding and allocator headers are left.
EXACT = Doubt(0.97, 1.05, "high")
#: Arrays that the code makes, whose overlap at the peak is read from it.
CODE = Doubt(0.7, 1.4, "medium")
#: What depends on values nobody stated: label noise, neighbours, iterations.
VALUES = Doubt(0.3, 1.8, "low")

SKLEARN = "scikit-learn 1.9"


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of an operation and what is live in it beside the process and the table."""

    name: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Steps:
    """What an estimator holds: while it is fitted, afterwards, and while it predicts.

    `predict` comes on top of `model`; the moments of `fit` hold the growing model themselves.
    """

    fit: tuple[Moment, ...]
    model: tuple[Part, ...] = ()
    predict: tuple[Part, ...] = ()


def part(
    name: str, size: float, formula: str, numbers: str, source: str, doubt: Doubt = CODE
) -> Part:
    """A part of `size` bytes with a doubt in shares."""
    best = max(0, int(size))
    span = ByteRange(int(best * doubt.low), best, int(best * doubt.high))
    return Part(name, span, formula, numbers, source, doubt.confidence)


def fit_of(*parts: Part, model: tuple[Part, ...] = (), predict: tuple[Part, ...] = ()) -> Steps:
    """Steps whose fit has one moment. The model is counted in it."""
    return Steps((Moment("fit", (*parts, *model)),), model, predict)


def total(parts: tuple[Part, ...]) -> ByteRange:
    """The sum of parts."""
    made = ByteRange(0, 0, 0)
    for each in parts:
        made = made + each.size
    return made


def best_bytes(parts: tuple[Part, ...]) -> int:
    """The sum of the parts' best sizes."""
    return sum(each.size.best_bytes for each in parts)


def heaviest(moments: tuple[Moment, ...]) -> Moment:
    """The moment whose best total is highest."""
    return max(moments, key=lambda moment: best_bytes(moment.parts))
