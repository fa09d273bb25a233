"""Every wrong field of a request, each with its path and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from typing import Any

from pydantic import ValidationError

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.problems import Violation

#: A beginning of so many letters means the names that go on from it, where they are so few.
SHORTEST_BEGINNING, MOST_BEGUN = 3, 6


class RequestInvalid(ValueError):
    """A request with wrong fields, all of them."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in self.violations))


@cache
def _not_built() -> dict[str, list[str]]:
    table: dict[str, list[str]] = data_of("sizewright_server", "not_built")
    return table


def echoed(value: object, most: int = 60) -> str:
    """What was given, in quotes, cut where it is long."""
    return repr(value[:most] + "..." if isinstance(value, str) and len(value) > most else value)


def one_of(kind: str, value: str, allowed: Iterable[str]) -> str:
    """What is wrong with a word of an open vocabulary, and what would be right."""
    choices = list(allowed)
    if value in _not_built().get(kind, ()):
        return f"{echoed(value)} is not built yet; use {quoted(choices)}"
    if not value:
        return f"is required: {quoted(choices)}"
    near = _near(value[:60].lower(), choices)
    hint = f"did you mean {quoted(near)}? " if near else ""
    return f"{echoed(value)} is not known; {hint}use {quoted(choices)}"


def _near(value: str, choices: list[str]) -> list[str]:
    """The few choices that begin with a value, such as H100-SXM with h100, or else the closest."""
    begun = [choice for choice in choices if choice.lower().startswith(value)]
    if len(value) >= SHORTEST_BEGINNING and 0 < len(begun) <= MOST_BEGUN:
        return begun
    cased = {choice.lower(): choice for choice in choices}
    return [cased[name] for name in difflib.get_close_matches(value, cased, n=1)]


def quoted(choices: list[str], most: int = 12) -> str:
    """A few choices in quotes, joined as a sentence would."""
    shown = [repr(choice) for choice in choices[:most]]
    if len(choices) > most:
        return ", ".join(shown) + f" or another of {len(choices)}"
    return " or ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def from_pydantic(error: ValidationError, path: str) -> list[Violation]:
    """The violations pydantic found in a section at `path`."""
    made = []
    for item in error.errors(include_url=False):
        parts = [str(part) for part in item["loc"]]
        field = ".".join(filter(None, [path, *parts]))
        # A name is of the kind its section says: `optimizer.name` is an optimizer.
        kinds = [part for part in parts if part != "name"]
        made.append(Violation(field, _describe(item, kinds[-1] if kinds else "")))
    return made


def _describe(item: Any, name: str) -> str:
    kind, context, value = item["type"], item.get("ctx", {}), item.get("input")
    if kind == "literal_error":
        choices = [
            c.strip().strip("'") for c in context["expected"].replace(" or ", ", ").split(",")
        ]
        return one_of(name, str(value), [choice for choice in choices if choice])
    if kind == "greater_than_equal":
        return f"must be at least {context['ge']:g}, not {value!r}"
    if kind == "less_than_equal":
        return f"must be at most {context['le']:,}, not {value!r}"
    if kind == "less_than":
        return f"must be below {context['lt']:g}, not {value!r}"
    if kind == "string_pattern_mismatch":
        return f"{echoed(value)} does not match {context['pattern']}"
    if kind == "finite_number":
        return f"must be a finite number, not {value!r}"
    if kind == "missing":
        return "is required"
    return f"{item['msg'][0].lower()}{item['msg'][1:]}"
