"""What a serving engine makes of its GPU, on a page."""

from __future__ import annotations

from rich.text import Text

from sizewright.v1 import estimate_pb2
from sizewright_client.render.figures import interval, printable, size
from sizewright_client.render.page import Page, grid_of


def put_serving(page: Page, view: estimate_pb2.ServingView) -> None:
    """Add what is needed for what is asked and, on a known GPU, what the engine holds there."""
    version = f" {printable(view.engine_version)}" if view.engine_version else ""
    page.heading(f"{printable(view.engine)}{version}, on each GPU")
    rows = [
        ("cache needed", interval(view.needed_cache)),
        ("least GPU memory", interval(view.least_gpu)),
    ]
    if view.bytes_per_token:
        rows.insert(0, ("a token takes", size(view.bytes_per_token)))
    if view.HasField("engine_use"):
        rows.append(("the engine takes", interval(view.engine_use)))
        rows += [
            ("sequences at once", _count(view.concurrent_sequences)),
            ("longest sequence", f"{_count(view.longest_sequence_tokens)} tokens"),
        ]
    if view.HasField("kv_tokens"):
        rows += [
            ("tokens in its pool", _count(view.kv_tokens)),
            ("blocks of the pool", _count(view.kv_blocks)),
        ]
    grid = grid_of(("name", "left"), ("sentence", "left"))
    for name, words in rows:
        grid.add_row(Text(name), Text(words))
    page.put(grid, indent=2)


def _count(value: estimate_pb2.CountRange) -> str:
    if value.low == value.high:
        return f"{value.best:,}"
    return f"{value.best:,} ({value.low:,} to {value.high:,})"
