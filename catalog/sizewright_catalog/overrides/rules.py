"""The file of overrides: rules, each a pattern of offers and what they cost its owner."""

from __future__ import annotations

from collections import Counter
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sizewright_catalog.values import NANOS

#: A pattern of names: `*`, `?` and `[...]` as in a shell; without them the very name.
Pattern = Annotated[str, Field(min_length=1, max_length=200)]
#: Dearest hour that is meant seriously, in dollars.
DEAREST = 1_000_000


class OverridesError(ValueError):
    """A file of overrides that cannot be used; `problems` says everything that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Match(_Section):
    """Which offers a rule is about: all patterns must match, and one at least must be given."""

    provider: Pattern = "*"
    type: Pattern = "*"
    region: Pattern = "*"
    zone: Pattern = "*"
    device: Pattern = "*"
    term: Literal["*", "on-demand", "spot", "committed"] = "*"
    commitment: Pattern = "*"

    @model_validator(mode="after")
    def _says_something(self) -> Match:
        if not self.model_fields_set:
            raise ValueError("needs a pattern at least: provider, type, region, device or term")
        return self


class Rule(_Section):
    """One discount or contract. `from` and `until` are days, both included."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    match: Match
    discount_percent: Annotated[Decimal, Field(gt=0, lt=100)] | None = None
    multiply: Annotated[Decimal, Field(gt=0, le=10)] | None = None
    per_hour: Annotated[Decimal, Field(ge=0, le=DEAREST)] | None = None
    valid_from: date | None = Field(default=None, alias="from")
    valid_until: date | None = Field(default=None, alias="until")
    note: Annotated[str, Field(max_length=500)] = ""

    @model_validator(mode="after")
    def _one_price(self) -> Rule:
        given = [self.discount_percent, self.multiply, self.per_hour]
        if sum(value is not None for value in given) != 1:
            raise ValueError("needs exactly one of discount_percent, multiply and per_hour")
        if self.valid_from and self.valid_until and self.valid_from > self.valid_until:
            raise ValueError(f"ends on {self.valid_until}, before it begins on {self.valid_from}")
        return self

    def holds_on(self, day: date) -> bool:
        """Whether the rule is in force on a day."""
        begun = self.valid_from is None or self.valid_from <= day
        return begun and (self.valid_until is None or day <= self.valid_until)

    def price_nanos(self, listed_nanos: int) -> int:
        """What an offer of a listed price costs under the rule, to the nearest nano-unit."""
        if self.per_hour is not None:
            return int((self.per_hour * NANOS).to_integral_value())
        if self.discount_percent is not None:
            share = (100 - Fraction(self.discount_percent)) / 100
        else:
            share = Fraction(self.multiply or 1)
        return round(listed_nanos * share)


class Overrides(_Section):
    """The rules, the first that matches an offer holding for it."""

    overrides: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Overrides:
        twice = [name for name, n in Counter(r.name for r in self.overrides).items() if n > 1]
        if twice:
            raise ValueError(f"rules of the same name: {', '.join(sorted(twice))}")
        return self


def read_overrides(path: Path) -> Overrides:
    """The rules of a YAML or JSON file. Raises OverridesError naming everything that is wrong."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Plain)
    except OSError as error:
        raise OverridesError([f"{path}: {error.strerror}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OverridesError([f"{path} is no YAML: {error}"]) from error
    if document is None:
        return Overrides()
    try:
        return Overrides.model_validate(document)
    except ValidationError as error:
        raise OverridesError(
            [f"{path}: {_described(item)}" for item in error.errors(include_url=False)]
        ) from error


def _described(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    words = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        words = "is not known"
    elif item["type"] == "model_type":
        words = "must be a mapping" if where else "must be a mapping with overrides: [...]"
    return f"{where}: {words}" if where else words


class _Plain(yaml.SafeLoader):
    """YAML whose decimal numbers stay text, so that a price is what was written."""


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


_Plain.add_constructor("tag:yaml.org,2002:float", _text)
