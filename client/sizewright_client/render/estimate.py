"""A memory estimate on a page: readings, phases, and one bar per part that is live at the peak."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from sizewright.v1 import estimate_pb2
from sizewright_client.render.explain import put_explanation
from sizewright_client.render.figures import gib, parameters, printable, size
from sizewright_client.render.layout import layout_words
from sizewright_client.render.page import Page, grid_of
from sizewright_client.render.serving import put_serving

_READINGS = (
    ("allocated", "bytes in live tensors"),
    ("reserved", "what the caching allocator holds"),
    ("device", "what nvidia-smi shows"),
)
_POOL_TITLES = {estimate_pb2.POOL_GPU: "GPU memory", estimate_pb2.POOL_HOST: "Host memory per node"}
_BAR_WIDTH = 24
_SMALLEST_SHARE = 0.001


def put_estimate(
    page: Page, estimate: estimate_pb2.MemoryEstimate, *, explain: bool = False
) -> None:
    """Add an estimate: what was estimated, each pool, and with `explain` every part's formula."""
    put_subject(page, estimate)
    for pool in estimate.pools:
        put_pool(page, pool)
    if estimate.HasField("serving"):
        put_serving(page, estimate.serving)
    put_warnings(page, estimate.warnings)
    if explain:
        for pool in estimate.pools:
            put_explanation(page, pool, pool_title(pool))


def put_subject(page: Page, estimate: estimate_pb2.MemoryEstimate) -> None:
    """Add the model and the layout in a line or two; what uses no GPU has no layout."""
    if not any(pool.pool == estimate_pb2.POOL_GPU for pool in estimate.pools):
        page.say(estimate.architecture)
        return
    total, trained = estimate.parameter_count, estimate.trainable_parameter_count
    words = estimate.architecture + (f"; {parameters(total)} parameters" if total else "")
    if 0 < trained < total:
        words += f", {parameters(trained)} of them trained"
    page.say(words)
    ranks = estimate.ranks_per_node
    on_node = f", {ranks} {'rank' if ranks == 1 else 'ranks'} on a node" if ranks else ""
    page.say(f"layout: {layout_words(estimate.layout)}{on_node}")


def put_pool(page: Page, pool: estimate_pb2.PoolEstimate) -> None:
    """Add one pool: its readings, the peak of each phase, and what is live at the highest."""
    scope = f" ({printable(pool.scope)})" if pool.scope else ""
    page.heading(f"{pool_title(pool)}{scope}")
    _put_readings(page, pool)
    if len(pool.phases) > 1:
        _put_phases(page, pool)
    if pool.peak_reason:
        page.say(f"why there: {printable(pool.peak_reason)}", indent=2)
    if pool.stages:
        _put_stages(page, pool)
    peak = next((phase for phase in pool.phases if phase.name == pool.peak_phase), None)
    if peak is not None:
        page.say(f"live in {peak.name}, where the peak is:", style="dim", indent=2)
        _put_parts(page, peak)


def pool_title(pool: estimate_pb2.PoolEstimate) -> str:
    """What a pool is called on a page."""
    return _POOL_TITLES.get(pool.pool, "Memory")


def put_warnings(page: Page, warnings: Iterable[estimate_pb2.Warning]) -> None:
    """Add the warnings, if there are any."""
    sentences = [f"{warning.message} [{warning.code}]" for warning in warnings]
    if sentences:
        page.heading("Worth knowing")
        page.points(sentences, style="yellow")


def _put_readings(page: Page, pool: estimate_pb2.PoolEstimate) -> None:
    grid = grid_of(
        ("reading", "left"),
        ("meaning", "left"),
        ("low", "right"),
        ("best", "right"),
        ("high", "right"),
    )
    head = [Text(word, style="dim") for word in ("", "GiB", "low", "best", "high")]
    grid.add_row(*head)
    if pool.HasField("gpu"):
        for name, meaning in _READINGS:
            style = "bold" if name == "device" else ""
            sizes = _sizes(getattr(pool.gpu, name), style)
            grid.add_row(Text(name, style=style), Text(meaning, style=style), *sizes)
    else:
        sizes = _sizes(pool.peak, "bold")
        grid.add_row(Text("peak", style="bold"), Text("the job's own processes"), *sizes)
    page.put(grid, indent=2)


def _sizes(span: estimate_pb2.ByteRange, style: str) -> list[Text]:
    sizes = (span.low_bytes, span.best_bytes, span.high_bytes)
    return [Text(gib(size_bytes), style=style) for size_bytes in sizes]


def _put_phases(page: Page, pool: estimate_pb2.PoolEstimate) -> None:
    page.say("phase by phase:", style="dim", indent=2)
    most = max(phase.total.best_bytes for phase in pool.phases)
    rows = []
    for phase in pool.phases:
        is_peak = phase.name == pool.peak_phase
        rows.append(
            (phase.name, phase.total.best_bytes, most, f"{page.glyphs.pointer} peak" * is_peak)
        )
    _put_bars(page, rows)


def _put_stages(page: Page, pool: estimate_pb2.PoolEstimate) -> None:
    """What the caching allocator holds on the ranks of the stages that can be the fullest."""
    page.say("pipeline stages, reserved:", style="dim", indent=2)
    sizes = {stage.stage: stage.reserved.best_bytes for stage in pool.stages}
    most = max(sizes.values())
    fullest = f"{page.glyphs.pointer} fullest"
    _put_bars(
        page,
        [
            (f"stage {number}", held, most, fullest * (held == most))
            for number, held in sorted(sizes.items())
        ],
    )


def _put_parts(page: Page, phase: estimate_pb2.Phase) -> None:
    total = phase.total.best_bytes
    large = [part for part in phase.parts if part.size.best_bytes >= total * _SMALLEST_SHARE]
    rows = [
        (
            part.name,
            part.size.best_bytes,
            total,
            f"{part.size.best_bytes / total:4.0%}" if total else "",
        )
        for part in sorted(large, key=lambda part: -part.size.best_bytes)
    ]
    _put_bars(page, rows)
    small = sum(part.size.best_bytes for part in phase.parts) - sum(row[1] for row in rows)
    if small > 0:
        page.say(f"and {size(small)} in smaller parts", style="dim", indent=4)


def _put_bars(page: Page, rows: Sequence[tuple[str, int, int, str]]) -> None:
    grid = grid_of(("name", "left"), ("size", "right"), ("bar", "left"), ("note", "left"))
    for name, size_bytes, whole, note in rows:
        share = size_bytes / whole if whole else 0.0
        bar = Text(page.glyphs.bar(share, _BAR_WIDTH).ljust(_BAR_WIDTH), style="cyan")
        grid.add_row(printable(name), size(size_bytes), bar, note)
    page.put(grid, indent=4)
