"""Whether a GPU buys anything: its work on the cores of a CPU, and what launches cost a GPU."""

from __future__ import annotations

from functools import cache
from typing import Any

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.estimator import PreparedWorkload
from sizewright_server.estimation.workload import Inference, Training
from sizewright_server.planning.throughput import FROZEN_PASSES, HALF, PASSES

Span = tuple[float, float, float]
#: Low, best and high of a time are a rate's high, value and low.
ENDS = ("high", "value", "low")


@cache
def processors() -> dict[str, Any]:
    """Bands of `data/processors.json`."""
    table: dict[str, Any] = data_of("sizewright_server.planning", "processors")
    return table


def cpu_hours(prepared: PreparedWorkload, vcpus: int) -> Span:
    """Hours of one sample on so many vCPUs: low, best and high."""
    work, rates = prepared.work, processors()["cpu_flops"]
    flops = work.forward_flops * _passes(prepared) + _decoding_flops(prepared)
    low, best, high = (flops / (max(vcpus, 1) * rates[end]) / 3600 for end in ENDS)
    return low, best, high


def launch_hours(prepared: PreparedWorkload) -> float:
    """Hours a sample cannot go below on a GPU: the launches of a step over its samples."""
    run = prepared.workload.run
    rows = run.batch if isinstance(run, Inference) else run.micro_batch
    steps = 1 + (run.new_tokens if isinstance(run, Inference) else 0)
    table = processors()
    each = table["launch_seconds"]["value"] * table["kernels_per_layer"]["value"]
    return float(prepared.work.layers * _passes(prepared) * steps * each / rows / 3600)


def _passes(prepared: PreparedWorkload) -> float:
    """Forward passes that a sample's forward and backward passes are worth."""
    run = prepared.workload.run
    if not isinstance(run, Training):
        return 1.0
    trained = prepared.trainable_parameter_count / max(prepared.parameter_count, 1)
    passes = PASSES if trained > 1 / HALF else FROZEN_PASSES
    return passes + (1.0 if run.checkpointing == "full" else 0.0)


def _decoding_flops(prepared: PreparedWorkload) -> float:
    run = prepared.workload.run
    tokens = run.new_tokens if isinstance(run, Inference) else 0
    return 2.0 * prepared.work.active_parameters * tokens
