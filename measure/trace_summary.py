"""Prints what one block of a model costs: ``trace_summary.py ROW.json [--module model.layers.3]``.

Saved activations are the bytes allocated inside the module during a forward pass that are still
alive when backward starts; the transients are how far the live total rises above its value at the
module's first event.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

from memory_trace import ROOT, Block, Event, MemoryTrace
from trace_model import read_workload, trace_workload

BACKWARD_NODE = re.compile(r" (<.*>|\(recompute\))$")


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run of events inside one module does to the live total."""

    transient_bytes: int
    net_bytes: int


def module_of(name: str) -> str:
    """The module path without the name of the autograd node."""
    return BACKWARD_NODE.sub("", name)


def inside(name: str, prefix: str) -> bool:
    module = module_of(name)
    return module == prefix or module.startswith(prefix + ".")


def parts(trace: MemoryTrace, chosen: str | None) -> list[str]:
    """The modules to report: the middle repeated block, and every part of the model outside such
    blocks.
    """
    blocks: list[str] = []
    others: list[str] = []
    for name in trace.modules.names.values():
        repeated = re.match(r"(.*\.\d+)(\.|$)", name)
        if repeated:
            blocks += [name] if repeated.group(1) == name else []
        else:
            others.append(name)
    outermost = [b for b in blocks if not any(b.startswith(a + ".") for a in blocks)]
    picked = chosen or (outermost[len(outermost) // 2] if outermost else ROOT)
    leaves = [
        o
        for o in others
        if not any(o == ROOT or n.startswith(o + ".") for n in trace.modules.names.values())
    ]
    return [picked, *leaves]


def rise(trace: MemoryTrace, prefix: str, phase: str, step: int) -> Figures | None:
    """The largest rise of the live total while the module runs in a phase, and its change from
    first to last event.
    """
    start: int | None = None
    peak = last = 0
    for event in trace.events:
        if event.step == step and event.phase == phase and inside(event.module, prefix):
            if start is None:
                start = peak = event.live_bytes - event.delta_bytes
            peak, last = max(peak, event.live_bytes), event.live_bytes
    return None if start is None else Figures(peak - start, last - start)


def saved(trace: MemoryTrace, step: int) -> list[Block]:
    """Blocks of the step's forward pass that are alive when it ends."""
    alive: dict[int, Block] = {}
    for event in trace.events:
        if event.step == step and event.phase == "fwd":
            if event.delta_bytes > 0:
                alive[event.block.number] = event.block
            else:
                alive.pop(event.block.number, None)
    return list(alive.values())


def listed(blocks: list[Block]) -> list[dict[str, Any]]:
    """Blocks grouped by module, operator, shape and type, largest first."""
    seen = Counter((b.module, b.operator, b.dtype, b.shape, b.size_bytes) for b in blocks)
    ranked = sorted(seen.items(), key=lambda item: -item[0][4] * item[1])
    return [
        {"module": m, "op": op, "dtype": d, "shape": list(shape), "bytes": size, "count": n}
        for (m, op, d, shape, size), n in ranked
    ]


def summary(trace: MemoryTrace, prefix: str, step: int) -> dict[str, Any]:
    """The figures of one module in one step."""
    blocks = [b for b in saved(trace, step) if inside(b.module, prefix)]
    result: dict[str, Any] = {"saved_bytes": sum(b.size_bytes for b in blocks)}
    for phase in ("fwd", "bwd"):
        figures = rise(trace, prefix, phase, step)
        if figures is not None:
            result[f"{phase}_rise_bytes"] = figures.transient_bytes
            result[f"{phase}_net_bytes"] = figures.net_bytes
    result["saved"] = listed(blocks)
    return result


def outside(trace: MemoryTrace, step: int, phase: str) -> list[Event]:
    """Allocations of a phase that no child module made: the loss, masks, rotary tables, loops."""
    return [
        e
        for e in trace.events
        if e.step == step and e.phase == phase and e.delta_bytes > 0
        and module_of(e.module) in ("", ROOT)
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", help="file with a row or a workload, or inline JSON")
    parser.add_argument("--module", help="module path; the middle repeated block without it")
    arguments = parser.parse_args()
    figures, trace = trace_workload(read_workload(arguments.row))
    step = max(e.step for e in trace.events) if figures.get("steps") else 1
    report: dict[str, Any] = {
        "peak_bytes": figures["peak_bytes"],
        "peak_phase": figures["peak_phase"],
    }
    report["modules"] = {
        name: summary(trace, name, step) for name in parts(trace, arguments.module)
    }
    for phase in ("fwd", "bwd"):
        blocks = [e.block for e in outside(trace, step, phase)]
        report[f"outside_modules_{phase}"] = listed(blocks)
    json.dump(report, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
