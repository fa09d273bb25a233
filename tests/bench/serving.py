"""Single estimates of serving engines: models of every kind, all new to the process."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.figures import Figure, timed

from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.serving.devices import serving_device
from sizewright_server.estimation.serving.prepared import PreparedServing
from sizewright_server.estimation.serving.run import Engine, ServingRun, ServingWorkload
from sizewright_server.estimation.workload import Layout, ModelSource

BUDGET_MS = 2.0
GIB = 2**30
#: Dense, windows, latents with experts, states, hybrids of three kinds, and a vision tower.
MODELS = (
    "meta-llama/Meta-Llama-3-70B",
    "google/gemma-3-27b-it",
    "deepseek-ai/DeepSeek-V3",
    "state-spaces/mamba-2.8b-hf",
    "Qwen/Qwen3.5-397B-A17B",
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B",
    "meta-llama/Llama-3.2-90B-Vision-Instruct",
)
ENGINES: tuple[Engine, ...] = ("vllm", "sglang", "transformers")


def serving_figures() -> list[Figure]:
    """The slowest of all models and engines: the budget is for any."""
    asked = [(engine, model, _asking(engine, model)) for engine in ENGINES for model in MODELS]
    for _, _, ask in asked:
        ask()
    slowest, engine, model = max(
        (timed([ask] * 15).median, engine, model) for engine, model, ask in asked
    )
    basis = (
        f"model read, prepared and estimated on a known GPU; slowest of {len(asked)} "
        f"({engine}, {model}), median of 15"
    )
    return [Figure("estimate: any serving engine", slowest, "ms", BUDGET_MS, basis=basis)]


def _asking(engine: Engine, model: str) -> Callable[[], object]:
    """One estimate from a configuration that was read before, and nothing else."""
    run = ServingRun(engine, "fp8", "bf16", "bf16", batch=16, input_tokens=7168, new_tokens=1024)
    workload = ServingWorkload(ModelSource(find_preset(model).config), run)
    device = serving_device("H100-SXM", "nvidia", 80 * GIB, 900.0, 9.0)
    overhead = device_overhead("nvidia", "9.0")

    def ask() -> object:
        return PreparedServing(workload).estimate(Layout(), 1, overhead, device=device)

    return ask
