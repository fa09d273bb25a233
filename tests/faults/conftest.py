"""The rigs of the catalog's tests, for faults: copies of homes that were refreshed once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from refresh_rig import FakeClock, Rig, rig


@pytest.fixture(scope="session")
def refreshed_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that was refreshed once, at the time fake clocks start."""
    folder = tmp_path_factory.mktemp("refreshed")
    with rig(folder, seeded=True, clock=FakeClock()) as made:
        assert made.refresh().stage == "done"
    return folder


@pytest.fixture
def refreshed(tmp_path: Path, refreshed_home: Path) -> Iterator[Rig]:
    """A rig whose provider was refreshed once, on the machine's own clock."""
    shutil.copytree(refreshed_home, tmp_path, dirs_exist_ok=True)
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def clocked(tmp_path: Path, refreshed_home: Path) -> Iterator[Rig]:
    """A rig whose provider was refreshed once, on a clock that a test can move."""
    shutil.copytree(refreshed_home, tmp_path, dirs_exist_ok=True)
    with rig(tmp_path, clock=FakeClock()) as made:
        yield made
