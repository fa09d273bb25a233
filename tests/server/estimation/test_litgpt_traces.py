"""litgpt's own code on fake CUDA tensors: allocated peaks of whole steps, and the estimate's.

litgpt 0.4.0, PyTorch 2.13, bf16, logits converted to fp32 as Lightning Fabric does, AdamW's states
not made: lora.py over two steps, adapter.py and adapter_v2.py over one.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sizewright_server.estimation.adapter_targets import adapter_targets, trained_modules
from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import Adapter, AdapterMethod, BaseWeights
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

GIB = 2**30
LORA = Adapter("lora", 8, frozenset("qv"), dropout=0.05, dtype="bf16")
EVERY = ("query", "key", "value", "projection", "mlp", "head")


def run(preset: str, tokens: int, batch: int, adapter: Adapter) -> Workload:
    training = Training(
        "bf16",
        Optimizer("adamw"),
        batch,
        tokens,
        layout=Layout(),
        modeling_code="litgpt",
        adapter=adapter,
        base_weights=BaseWeights("bf16"),
        longest_batch_first=True,
    )
    return Workload(ModelSource(find_preset(preset).config), training)


def allocated_gib(workload: Workload) -> float:
    pool = prepare(workload).estimate(Layout(), 1, device_overhead(None, None)).pool("gpu")
    assert pool.gpu is not None
    return pool.gpu.allocated.best_bytes / GIB


@pytest.mark.parametrize(
    ("preset", "tokens", "batch", "rank", "names", "traced_gib"),
    [
        ("microsoft/phi-1_5", 1044, 4, 8, ("query", "value"), 9.924),
        ("meta-llama/Llama-2-7b-hf", 512, 2, 32, ("query", "value"), 18.316),
        # Its head has a table of its own.
        ("google/gemma-2b", 512, 2, 8, EVERY, 11.669),
    ],
)
def test_lora_allocates_what_its_trace_does(
    preset: str, tokens: int, batch: int, rank: int, names: tuple[str, ...], traced_gib: float
) -> None:
    adapter = replace(LORA, rank=rank, targets=adapter_targets(names, "lora"))

    found = allocated_gib(run(preset, tokens, batch, adapter))
    assert found == pytest.approx(traced_gib, rel=0.012)


@pytest.mark.parametrize(
    ("method", "preset", "tokens", "batch", "traced_gib", "trained"),
    [
        ("adaption-prompt", "microsoft/phi-1_5", 1044, 4, 8.517, 451_264),
        ("adaption-prompt", "meta-llama/Llama-2-7b-hf", 512, 2, 17.300, 1_229_760),
        ("adapter-v2", "microsoft/phi-1_5", 1044, 4, 12.872, 1_540_800),
        ("adapter-v2", "meta-llama/Llama-2-7b-hf", 512, 2, 20.797, 4_279_744),
    ],
)
def test_both_versions_of_llama_adapter_allocate_what_their_traces_do(
    method: AdapterMethod, preset: str, tokens: int, batch: int, traced_gib: float, trained: int
) -> None:
    adapter = Adapter(
        method,
        1,
        adapter_targets((), method),
        dtype="bf16",
        trained_modules=trained_modules((), method),
        virtual_tokens=10,
    )
    workload = run(preset, tokens, batch, adapter)

    assert allocated_gib(workload) == pytest.approx(traced_gib, rel=0.025)
    assert prepare(workload).trainable_parameter_count == pytest.approx(trained, rel=0.015)
