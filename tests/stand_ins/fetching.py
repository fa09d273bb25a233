"""What the tests of providers have in common: payloads, a context, and everything a fetch gives."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sizewright_catalog.providers import load_provider
from sizewright_catalog.providers.contract import FetchContext
from sizewright_catalog.rows import OfferRow, TypeRow

FIXTURES = Path(__file__).parents[1] / "fixtures"
NOW = datetime(2026, 11, 24, 21, 3, tzinfo=UTC)


def payload(provider: str, name: str) -> dict[str, Any]:
    """A recorded or built answer of a provider."""
    made: dict[str, Any] = json.loads((FIXTURES / provider / f"{name}.json").read_text())
    return made


def context_of(settings: dict[str, str], seconds: float = 20.0) -> FetchContext:
    """A context at a fixed time with short time-outs."""
    return FetchContext(settings, 5.0, lambda: seconds, now=lambda: NOW)


@dataclass
class Fetched:
    """All rows of some scopes, and what was left out."""

    types: dict[str, TypeRow] = field(default_factory=dict)
    offers: list[OfferRow] = field(default_factory=list)
    scopes: tuple[str, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)

    def of(self, name: str, term: str = "") -> list[OfferRow]:
        """The offers of a type on a term."""
        return [o for o in self.offers if o.type == name and term in ("", o.term)]

    def price(self, name: str, term: str, commitment: str = "") -> int:
        """The one price of a type on a term, in nano-dollars."""
        (found,) = [o for o in self.of(name, term) if o.commitment == commitment]
        return found.per_hour_nanos


def fetched(provider: str, context: FetchContext, *scopes: str) -> Fetched:
    """Everything a provider gives, of all its scopes by default, each type before its offers."""
    source = load_provider(provider)
    found = Fetched(scopes=tuple(source.scopes(context)))
    for scope in scopes or found.scopes:
        known: set[str] = set()
        for page in source.fetch(scope, context):
            known.update(row.type for row in page.types)
            found.types.update((row.type, row) for row in page.types)
            assert all(offer.type in known for offer in page.offers)
            assert all(offer.region == scope for offer in page.offers)
            found.offers += page.offers
    found.dropped = dict(context.dropped)
    return found
