"""A rig for every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from refresh_rig import Rig, rig


@pytest.fixture
def standing(tmp_path: Path) -> Iterator[Rig]:
    """A rig whose provider has never been refreshed."""
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def refreshed(tmp_path: Path) -> Iterator[Rig]:
    """A small rig whose provider was refreshed once."""
    with rig(tmp_path, seeded=True) as made:
        assert made.refresh().stage == "done"
        yield made
