"""Single estimates of training: dense models, mixtures and hybrids of 32 to 126 layers.

Each call prepares a workload the process has not seen and estimates it, with or without the replay
of the allocator. What is reported is the slowest of all layouts.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.figures import Figure, Timing, timed

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.workload import (
    Checkpointing,
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

BUDGET_MS, REPLAYED_BUDGET_MS = 2.0, 20.0
CALLS = 15
FSDP2 = Layout(dp=64, zero=3, sharding="fsdp2")
THREE_D = Layout(dp=8, zero=1, tp=8, pp=18, sharding="megatron", sequence_parallel=True)
#: Model and layout: 32, 80 and 126 layers; 32, 48 and 61 layers of experts; then models whose
#: layers alternate: by window, between recurrence and attention, and with experts in some.
ASKED = (
    ("meta-llama/Meta-Llama-3-8B", Layout()),
    ("meta-llama/Llama-3.1-70B", FSDP2),
    ("meta-llama/Llama-3.1-405B", THREE_D),
    ("mistralai/Mixtral-8x7B-v0.1", FSDP2),
    ("Qwen/Qwen3-30B-A3B", FSDP2),
    ("deepseek-ai/DeepSeek-V3", FSDP2),
    ("google/gemma-3-27b-it", FSDP2),
    ("Qwen/Qwen3-Next-80B-A3B-Instruct", FSDP2),
    ("nvidia/Nemotron-H-56B-Base-8K", FSDP2),
    ("ai21labs/AI21-Jamba-1.5-Large", FSDP2),
)
CHECKPOINTING: tuple[Checkpointing, ...] = ("none", "full")


def training_figures() -> list[Figure]:
    """The slowest estimate without and with the replay."""
    return [
        _figure("estimate: any training layout", BUDGET_MS, replay=False),
        _figure("estimate: any, allocator replayed", REPLAYED_BUDGET_MS, replay=True),
    ]


def _figure(name: str, budget: float, *, replay: bool) -> Figure:
    found: list[tuple[float, Timing, str]] = []
    for model, layout in ASKED:
        for checkpointing in CHECKPOINTING:
            ask = _asking(model, layout, checkpointing, replay=replay)
            ask()
            timing = timed([ask] * CALLS)
            found.append((timing.median, timing, f"{model}, checkpointing {checkpointing}"))
    _, slowest, words = max(found, key=lambda one: one[0])
    basis = (
        f"workload prepared and estimated, its configuration read; slowest of {len(found)}"
        f" ({words}), median of {CALLS}"
    )
    return Figure(name, slowest.median, "ms", budget, beside=slowest.beside(), basis=basis)


def _asking(
    model: str, layout: Layout, checkpointing: Checkpointing, *, replay: bool
) -> Callable[[], object]:
    """One estimate of a workload by itself."""
    run = Training(
        "bf16-mixed",
        Optimizer("adamw", "fused"),
        1,
        4096,
        gradient_accumulation_steps=2 * layout.pp,
        checkpointing=checkpointing,
        layout=layout,
    )
    workload = Workload(ModelSource(find_preset(model).config), run)
    overhead = device_overhead("nvidia", "9.0")

    def ask() -> object:
        return prepare(workload).estimate(layout, 8, overhead, replay=replay)

    return ask
