"""Prints the exact tensor memory of a workload: ``trace_model.py ROW.json`` (a row, its workload,
or inline JSON).
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

# isort: split
import cuda_guard  # noqa: F401  (before torch)

# isort: split
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import models
import workloads
from allocator_replay import replay
from fake_cuda import pretend_gpu
from memory_trace import Event, MemoryTrace


def trace_workload(workload: dict[str, Any]) -> tuple[dict[str, Any], MemoryTrace]:
    """Runs the workload; returns its figures and the trace with every event."""
    if workload.get("dist"):
        raise ValueError("dist: only single-GPU workloads can be traced")
    started = time.monotonic()
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        pretend_gpu(padded=bool(workload.get("padded_mask"))) as attention,
        MemoryTrace() as trace,
    ):
        model = models.build_model(workload)
        gc.collect()
        trace.categorise(model.parameters(), "param")
        trace.categorise(model.buffers(), "buffer")
        figures = {
            "n_params": sum(p.numel() for p in model.parameters()),
            "n_trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "param_bytes": trace.by_category["param"],
            "buffer_bytes": trace.by_category["buffer"],
        }
        # Only what a step needs at once matters, not what building the model took.
        trace.peak.bytes = 0
        trace.phase_peaks.clear()
        trace.modules.watch(model)
        run = workloads.train if workload["mode"] == "train" else workloads.infer
        try:
            figures |= run(workload, model, trace)
        finally:
            trace.modules.close()
            trace.stop()
        figures |= {
            "peak_bytes": trace.peak.bytes,
            "peak_phase": trace.peak.phase,
            "peak_step": trace.peak.step,
            "breakdown": trace.peak.breakdown,
            "reserved_sim_bytes": replay(trace.events),
            "sdpa_kernels": dict(attention.kernels),
            "largest_allocs": largest(trace.events),
            "n_ops": trace.operator_count,
            "wall_s": round(time.monotonic() - started, 2),
        }
    return figures, trace


def largest(events: list[Event], count: int = 12) -> list[dict[str, Any]]:
    """The largest allocations of the steps, equal ones counted together."""
    seen: Counter[tuple[str, str, tuple[int, ...], int]] = Counter(
        (e.block.operator, e.block.dtype, e.block.shape, e.block.size_bytes)
        for e in events
        if e.delta_bytes > 0 and e.step
    )
    ranked = sorted(seen.items(), key=lambda item: -item[0][3])[:count]
    return [
        {"op": op, "dtype": dtype, "shape": list(shape), "bytes": size, "count": number}
        for (op, dtype, shape, size), number in ranked
    ]


def write_events(trace: MemoryTrace, path: Path) -> None:
    """One tab-separated line per event of the steps; the peak's line is marked."""
    with path.open("w") as out:
        out.write(
            "index\tstep\tphase\tdelta\tblock\tlive\tcategory\tdtype\tshape\top\tmodule\tborn\n"
        )
        for index, e in enumerate(trace.events):
            if not e.step:
                continue
            mark = " PEAK" if index == trace.peak.event else ""
            shape = "x".join(map(str, e.block.shape)) or "scalar"
            born = "" if e.delta_bytes > 0 else f"{e.block.operator} in {e.block.module}"
            cells: list[object] = [index, e.step, e.phase, f"{e.delta_bytes:+d}", e.block.number]
            cells += [e.live_bytes, e.block.category, e.block.dtype, shape]
            cells += [e.operator, e.module, born]
            out.write("\t".join(map(str, cells)) + mark + "\n")


def read_workload(text: str) -> dict[str, Any]:
    """A workload from inline JSON or a file; a ground truth row is unwrapped."""
    value = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text())
    result: dict[str, Any] = value.get("workload", value)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", help="file with a row or a workload, or inline JSON")
    parser.add_argument("--events", type=Path, help="write the event log here")
    arguments = parser.parse_args()
    figures, trace = trace_workload(read_workload(arguments.row))
    if arguments.events:
        write_events(trace, arguments.events)
    json.dump(figures, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main())
