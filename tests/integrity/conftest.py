"""The bundled snapshot for every test of this folder."""

from __future__ import annotations

import pytest

from bundled_catalog import Bundled
from sizewright_catalog.catalog import Catalog


@pytest.fixture(scope="session")
def bundled() -> Bundled:
    return Bundled(Catalog.load())
