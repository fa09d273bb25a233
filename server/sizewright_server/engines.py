"""Engines over what there is to serve: the bundled snapshot, or what a home publishes."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sizewright_catalog.catalog import Catalog
from sizewright_catalog.home import Home, default_home
from sizewright_catalog.published import serve_from
from sizewright_server.service import Sizing

if TYPE_CHECKING:
    from sizewright_catalog.overrides import Overrides


@lru_cache(maxsize=1)
def bundled_sizing() -> Sizing:
    """The engine over the bundled snapshot."""
    return Sizing(Catalog.load())


def sizing_of(
    home: Home, store_url: str | None = None, overrides: Overrides | None = None
) -> Sizing:
    """The engine over what a home serves. Raises SnapshotError for a broken installation."""
    served = serve_from(home)
    return Sizing(
        served.catalog,
        published=served.published,
        problems=served.problems,
        home=home,
        store_url=store_url,
        overrides=overrides,
    )


def overrides_of(path: Path | None) -> Overrides | None:
    """The rules of a file of private prices; None without one. Raises OverridesError."""
    if path is None:
        return None
    from sizewright_catalog.overrides import read_overrides

    return read_overrides(path)


@lru_cache(maxsize=1)
def home_sizing() -> Sizing:
    """The engine over what the user's own home serves: the bundled snapshot until a refresh.

    Raises OverridesError for a file of private prices that cannot be used.
    """
    prices = os.environ.get("SIZEWRIGHT_PRICE_OVERRIDES")
    return sizing_of(
        default_home(),
        os.environ.get("SIZEWRIGHT_STORE_URL") or None,
        overrides_of(Path(prices) if prices else None),
    )
