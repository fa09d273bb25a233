"""Published runs of sharded recipes: what they reported, and the library's rule behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.layout import FsdpSettings
from sizewright_server.estimation.memory import GpuReadings
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import Adapter, BaseWeights, Kernels
from sizewright_server.estimation.training import TrainingGroup
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

GIB = 2**30
LLAMA_2_7B = find_preset("meta-llama/Llama-2-7b-hf").config
TARGETS = frozenset(["q", "k", "v", "gate", "up", "down"])
LINEAR = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11_008)
RANKS = Layout(dp=2, zero=3, sharding="fsdp1", fsdp=FsdpSettings(sync_module_states=True))


def lora(tokens: int, batch: int = 1, layout: Layout = RANKS, base: str = "bf16") -> Training:
    """fsdp_qlora train.py of March 2024: rank 64, dropout 0.1, all in bf16, checkpointed blocks."""
    return Training(
        "bf16",
        Optimizer("adamw"),
        batch,
        tokens,
        checkpointing="full",
        layout=layout,
        modeling_code="transformers-4.45",
        adapter=Adapter("lora", 64, TARGETS, dropout=0.1, dtype="bf16"),
        base_weights=BaseWeights(base, double_quantization=base == "nf4"),
    )


def group_of(run: Training, config: dict[str, Any] = LLAMA_2_7B) -> TrainingGroup:
    assert run.layout is not None
    group = prepare(Workload(ModelSource(config), run)).group([run.layout])
    assert isinstance(group, TrainingGroup)
    return group


def readings(run: Training) -> GpuReadings:
    assert run.layout is not None
    prepared = prepare(Workload(ModelSource(LLAMA_2_7B), run))
    overhead = device_overhead("nvidia", "8.6")
    found = prepared.estimate(run.layout, 2, overhead, replay=True).pool("gpu").gpu
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("tokens", "allocated", "reserved"), [(512, 8.28, 10.24), (2048, 9.16, 10.22)]
)
def test_lora_under_fsdp1_allocates_and_reserves_what_was_published(
    tokens: int, allocated: float, reserved: float
) -> None:
    """AnswerDotAI/fsdp_qlora benchmarks_03_2024.md, Llama-2 7B on two RTX 3090."""
    found = readings(lora(tokens))

    assert found.allocated.best_bytes / GIB == pytest.approx(allocated, rel=0.03)
    assert found.reserved.best_bytes / GIB == pytest.approx(reserved, rel=0.05)


def test_wrapping_units_for_fsdp1_leaves_blocks_cached() -> None:
    """512 tokens reserve as much as 2048: the peak was reached before the first step."""
    short, long = readings(lora(512)), readings(lora(2048))

    assert long.allocated.best_bytes - short.allocated.best_bytes > 0.8 * GIB
    assert long.reserved.best_bytes - short.reserved.best_bytes < 0.5 * GIB


def test_scales_of_quantised_weights_are_whole_on_every_rank_and_never_offloaded() -> None:
    """bitsandbytes keeps them in quant_state, which FSDP does not see."""
    scales = LINEAR / 64 * (1 + 4 / 256)
    offloaded = replace(RANKS, offload="optimizer-and-parameters")
    alone = group_of(lora(512, layout=replace(RANKS, dp=64), base="nf4")).resident.weights[0]
    host = group_of(lora(512, layout=offloaded, base="nf4")).resident.weights[0]

    assert host == pytest.approx(scales, rel=0.001)
    assert alone > scales


def test_buffers_of_gptq_layers_are_not_sharded() -> None:
    """auto-gptq registers them as buffers; FSDP shards parameters alone."""
    resident = [
        int(group_of(lora(512, layout=replace(RANKS, dp=dp), base="gptq-int4")).resident.weights[0])
        for dp in (2, 64)
    ]
    assert min(resident) > LINEAR * (0.5 + 2.5 / 128)


def test_an_offloaded_unit_brings_its_shard_to_the_gpu_to_be_gathered() -> None:
    offloaded = replace(RANKS, offload="optimizer-and-parameters")
    here, away = group_of(lora(512)), group_of(lora(512, layout=offloaded))
    block = next(i for i, s in enumerate(here.segments) if s.repeats)

    held = here.working.forward()[block][0]
    assert away.working.forward()[block][0] == held + held // 2


PHI = {**find_preset("microsoft/phi-1_5").config}
MIXED = Layout(
    dp=2, zero=3, sharding="fsdp1", fsdp=FsdpSettings(use_orig_params=True, no_sync=True)
)


def litgpt(batch: int, layout: Layout) -> Training:
    """litgpt finetune/lora.py of October 2023: query and value, the longest batch first."""
    return Training(
        "bf16",
        Optimizer("adamw"),
        batch,
        1044,
        gradient_accumulation_steps=64 // batch,
        checkpointing="full" if layout.zero else "none",
        layout=layout,
        modeling_code="litgpt",
        variable_lengths=True,
        longest_batch_first=True,
        adapter=Adapter("lora", 8, frozenset("qv"), dropout=0.05, dtype="bf16"),
        base_weights=BaseWeights("bf16"),
    )


@pytest.mark.parametrize(
    ("batch", "layout", "published_gb"),
    [
        (1, Layout(), 4.82),
        (2, Layout(), 6.76),
        (4, Layout(), 10.68),
        (1, MIXED, 4.86),
        (4, MIXED, 5.88),
    ],
)
def test_litgpts_table_of_phi_is_met_on_one_gpu_and_on_two(
    batch: int, layout: Layout, published_gb: float
) -> None:
    """litgpt tutorials/resource-tables.md, max_memory_allocated in decimal GB."""
    workload = Workload(ModelSource(PHI), litgpt(batch, layout))
    overhead = device_overhead("nvidia", "8.0")
    found = prepare(workload).estimate(layout, 2, overhead).pool("gpu").gpu
    assert found is not None

    assert found.allocated.best_bytes / 1e9 == pytest.approx(published_gb, rel=0.045)


def test_a_flat_parameter_with_frozen_parts_has_a_gradient_of_its_whole_size() -> None:
    """Measured: FlatParameter.grad of PyTorch 2.13 on two ranks, an adapter beside a frozen layer.

    Under no_sync it is whole on each rank, after the last micro-batch split over them.
    """
    group = group_of(litgpt(1, MIXED), PHI)
    block = next(i for i, s in enumerate(group.segments) if s.repeats)
    unit = int(group.states.gathered_whole()[block][0])
    trained = int(group.states.whole(2)[block][0])

    assert unit > 100 * trained
    assert group.working.after_backward()[block][0] == unit - trained
    assert int(group.working.stepped()[0]) == pytest.approx(24 * unit / 2, rel=1e-3)


def test_adapters_that_are_units_of_their_own_have_gradients_of_their_own() -> None:
    apart = group_of(lora(512))
    block = next(i for i, s in enumerate(apart.segments) if s.repeats)
    trained = int(apart.states.whole(2)[block][0])

    assert int(apart.working.after_backward()[block][0]) < 0
    assert int(apart.working.stepped()[0]) == pytest.approx(32 * trained / 2, rel=1e-2)


def test_without_a_last_micro_batch_gradients_of_full_training_stay_whole() -> None:
    """accelerate's Mixtral out of memory under no_sync: 2 bytes of every parameter on each rank."""
    config = find_preset("meta-llama/Meta-Llama-3-8B").config
    run = Training("bf16", Optimizer("adamw"), 1, 512, 8, checkpointing="full")
    kept = []
    for no_sync in (False, True):
        layout = Layout(dp=8, zero=3, sharding="fsdp1", fsdp=FsdpSettings(no_sync=no_sync))
        kept.append(int(group_of(replace(run, layout=layout), config).resident.gradients_kept[0]))

    assert kept[1] == pytest.approx(2 * 8_030_261_248, rel=1e-3)
    assert kept[0] == pytest.approx(kept[1] / 8, rel=1e-3)


def test_the_logits_of_older_transformers_are_fp32_and_copied() -> None:
    """Up to 4.45 a loop that keeps the output holds 16 bytes a logit where 14 are held since."""
    logits = 4 * 2048 * 32_000
    old = lora(2048, 4)
    at_loss = [
        int(readings(run).allocated.best_bytes)
        for run in (old, replace(old, modeling_code="transformers"))
    ]
    assert at_loss[0] - at_loss[1] == pytest.approx(2 * logits, rel=0.05)


def test_a_family_whose_loss_was_in_its_own_type_is_not_upcast() -> None:
    config = find_preset("gpt2").config
    run = Training("bf16", Optimizer("adamw"), 8, 1024, layout=Layout())

    def largest_at_loss(kind: Any) -> int:
        stages = group_of(replace(run, modeling_code=kind), config).all_stages
        return int(next(stage for stage in stages if stage.phase == "loss").sizes.max())

    logits = 8 * 1024 * 50_257
    assert largest_at_loss("transformers-4.45") == 2 * logits
    assert largest_at_loss("transformers") == 4 * logits


def test_a_compiled_loss_takes_four_bytes_a_logit() -> None:
    """torchtitan, Llama-3.1 8B: its loss is compiled since April 2025 (pull request 1033)."""
    run = Training("bf16-mixed", Optimizer("adamw"), 2, 8192, checkpointing="full", loop="trainer")
    logits = 2 * 8192 * 128_256
    config = find_preset("meta-llama/Meta-Llama-3-8B").config
    layout = Layout(dp=32, zero=3, sharding="fsdp2")
    peaks = []
    for loss in (None, "compiled"):
        workload = Workload(
            ModelSource(config), replace(run, layout=layout, kernels=Kernels(loss=loss))
        )
        found = prepare(workload).estimate(layout, 8, device_overhead("nvidia", "9.0"))
        loss_phase = next(p for p in found.pool("gpu").phases if p.name == "loss")
        made = [p.size.best_bytes for p in loss_phase.parts if p.name == "activations"]
        peaks.append(sum(made))

    assert peaks[0] - peaks[1] == pytest.approx(8 * logits, rel=0.03)


def test_an_optimizer_on_the_host_leaves_weights_and_gradients_on_the_gpu() -> None:
    """torchao's CPUOffloadOptimizer on one GPU; it drops gradients only where it is asked to."""
    count = 6_738_415_616
    away = Layout(offload="optimizer")
    run = Training("bf16", Optimizer("adamw"), 1, 512, checkpointing="full", layout=away)
    resident = group_of(run).resident
    stepped = group_of(run).schedule.step_bytes[0]

    assert int(resident.weights[0]) == pytest.approx(2 * count, rel=1e-3)
    assert int(resident.optimizer[0]) == 0
    assert stepped == pytest.approx(2 * count + 2 * 512 * 32_000, rel=1e-2)


@pytest.mark.parametrize(
    ("ranks", "precision", "compiled", "published_gib"),
    [
        (128, "bf16-mixed", "none", 67.0),
        (128, "bf16-mixed", "blocks", 62.0),
        (128, "fp8", "blocks", 61.8),
    ],
)
def test_compiled_blocks_drop_the_product_that_the_backward_pass_never_reads(
    ranks: int, precision: Any, compiled: Any, published_gib: float
) -> None:
    """torchtitan benchmarks/llama3_h100_202412_torchtitan.md, table 3: 2 x 8192 tokens, selective.

    8 KB a token and layer are the down projection's output, which eager contexts keep: 4 GiB.
    """
    layout = Layout(dp=ranks, zero=3, sharding="fsdp2")
    run = Training(
        precision,
        Optimizer("adamw"),
        2,
        8192,
        checkpointing="selective",
        loop="trainer",
        layout=layout,
        kernels=Kernels(compile=compiled),
    )
    config = find_preset("meta-llama/Meta-Llama-3-8B").config
    prepared = prepare(Workload(ModelSource(config), run))
    found = prepared.estimate(layout, 8, device_overhead("nvidia", "9.0"), replay=True)
    gpu = found.pool("gpu").gpu
    assert gpu is not None

    assert gpu.reserved.best_bytes / GIB == pytest.approx(published_gib, rel=0.03)
