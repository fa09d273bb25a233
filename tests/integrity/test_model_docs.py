"""docs/models.md lists every family that is built, once, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from sizewright_server.estimation.frontend import families

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_page_lists_the_families_that_are_built() -> None:
    table = PAGE.read_text(encoding="utf-8").split("| kind |")[1].split("\n\n")[0]
    listed = re.findall(r"`([^`]+)`", table)

    assert sorted(listed) == sorted({*families(), "model_type"})
