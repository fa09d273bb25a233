"""An observed run on a page: the peak, a plot over time, growth, and the estimate beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from sizewright_client.observe.comparison import Comparison
from sizewright_client.observe.record import Growth, Observation
from sizewright_client.observe.sampling import Sample
from sizewright_client.render.figures import printable, size
from sizewright_client.render.page import Page, grid_of

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*#@"
_PLOT_ROWS = 6
_PLOT_COLUMNS = 60
_STYLES = {"below": "yellow", "within": "green", "above": "red"}
_WORDS = {
    "below": "below the interval",
    "within": "inside the interval",
    "above": "above the interval",
}


def put_observation(page: Page, seen: Observation, compared: Sequence[Comparison]) -> None:
    """Add the whole report."""
    page.say(" ".join(seen.command), style="bold")
    ended = "ended well" if seen.exit_status == 0 else f"ended with {seen.exit_status}"
    page.say(f"{ended} after {seen.duration_seconds:.1f} s")
    grid = grid_of(("what", "left"), ("size", "right"), ("note", "left"))
    processes = f"{seen.peak_process_count} processes" if seen.peak_process_count > 1 else ""
    grid.add_row(Text("peak", style="bold"), Text(size(seen.peak_bytes), style="bold"),
                 ", ".join(word for word in (seen.reading, processes) if word))  # fmt: skip
    if seen.peak_process_count > 1:
        grid.add_row("largest process", size(seen.largest_process_bytes), "resident, alone")
    if seen.gpu_peak_bytes is not None:
        grid.add_row("fullest GPU", size(seen.gpu_peak_bytes), "of these processes")
    page.put(grid, indent=2)
    if len(seen.samples) > 1:
        page.heading("Memory over time")
        for line in plot(seen.samples, unicode=page.glyphs.unicode):
            page.put(Text(line, style="cyan"), indent=2)
    if seen.growth is not None:
        page.put("")
        page.say(growth_words(seen.growth), style="yellow" if seen.growth.steady else "")
    if compared:
        _put_comparison(page, compared)


def growth_words(growth: Growth) -> str:
    """A sentence on the trend of the second half."""
    rate = size(abs(growth.bytes_per_minute))
    if growth.steady:
        return f"It grew by {rate} a minute to the end, steadily: this may be a leak."
    if growth.bytes_per_minute > 0:
        return f"In its second half it grew by {rate} a minute, not steadily."
    return f"In its second half it shrank by {rate} a minute or stayed level."


def plot(samples: Sequence[Sample], *, unicode: bool) -> list[str]:
    """Rows of a plot, highest first: the largest sample of each span of time."""
    columns = _columns(samples)
    most = max(max(columns), 1)
    signs = _EIGHTHS if unicode else _ASCII
    lines = []
    for row in reversed(range(_PLOT_ROWS)):
        cells = []
        for value in columns:
            filled = value / most * _PLOT_ROWS - row
            cells.append(signs[round(min(max(filled, 0.0), 1.0) * 8)])
        label = size(most) if row == _PLOT_ROWS - 1 else ""
        lines.append(f"{label:>10} {''.join(cells)}".rstrip())
    end = f"{samples[-1].seconds:.1f} s"
    lines.append(f"{'0':>12}{end:>{max(len(columns) - 1, len(end))}}")
    return lines


def _columns(samples: Sequence[Sample]) -> list[int]:
    """The highest sample in each of equal spans; a span without one keeps the last."""
    start, end = samples[0].seconds, samples[-1].seconds
    count = min(_PLOT_COLUMNS, len(samples))
    made = [0] * count
    for sample in samples:
        at = int((sample.seconds - start) / (end - start or 1.0) * count)
        at = min(at, count - 1)
        made[at] = max(made[at], sample.memory_bytes)
    for at in range(1, count):
        made[at] = made[at] or made[at - 1]
    return made


def _put_comparison(page: Page, compared: Sequence[Comparison]) -> None:
    page.heading("Beside the estimate")
    grid = grid_of(
        ("pool", "left"), ("seen", "right"), ("estimate", "right"), ("note", "left"), ("v", "left")
    )
    for one in compared:
        span = f"{size(one.low_bytes)} to {size(one.high_bytes)}"
        grid.add_row(
            one.pool,
            size(one.observed_bytes),
            size(one.best_bytes),
            f"{one.error:+.1%} ({span})",
            Text(_WORDS[one.verdict], style=_STYLES[one.verdict]),
        )
    page.put(grid, indent=2)


def observation_document(seen: Observation, compared: Sequence[Comparison]) -> dict[str, Any]:
    """The report as JSON's own types; bytes are integers."""
    growth = seen.growth
    return {
        "command": [printable(word) for word in seen.command],
        "exit_status": seen.exit_status,
        "duration_seconds": round(seen.duration_seconds, 3),
        "reading": seen.reading,
        "peak_bytes": seen.peak_bytes,
        "peak_seconds": round(seen.peak_seconds, 3),
        "peak_process_count": seen.peak_process_count,
        "largest_process_bytes": seen.largest_process_bytes,
        "gpu_peak_bytes": seen.gpu_peak_bytes,
        "growth": None
        if growth is None
        else {
            "bytes_per_minute": growth.bytes_per_minute,
            "fit": round(growth.fit, 3),
            "steady": growth.steady,
        },
        "timeline": [
            {
                "seconds": round(sample.seconds, 3),
                "memory_bytes": sample.memory_bytes,
                "process_count": sample.process_count,
                "gpu_bytes": sample.gpu_bytes,
            }
            for sample in seen.samples
        ],
        "comparison": [
            {
                "pool": one.pool,
                "observed_bytes": one.observed_bytes,
                "low_bytes": one.low_bytes,
                "best_bytes": one.best_bytes,
                "high_bytes": one.high_bytes,
                "error": round(one.error, 4),
                "verdict": one.verdict,
            }
            for one in compared
        ],
    }
