"""Optimizers, losses, kernels, codes and lengths: what each adds and what it saves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.memory import ByteRange, GpuReadings
from sizewright_server.estimation.optimizers import optimizers
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import (
    Adapter,
    BaseWeights,
    CheckpointPolicy,
    Kernels,
    Preference,
    StateTypes,
)
from sizewright_server.estimation.training import TrainingGroup
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

CONFIG = find_preset("meta-llama/Meta-Llama-3-8B").config
COUNT = 8_030_261_248
TABLES = 2 * 128_256 * 4096
VECTORS = 65 * 4096


def training(**changes: Any) -> Training:
    run = Training("bf16", Optimizer("adamw", "fused"), 1, 2048, layout=Layout())
    return replace(run, **changes)


def states_bytes(name: str, config: dict[str, Any] = CONFIG, **changes: Any) -> int:
    step = optimizers()[name].steps[0]
    run = training(optimizer=Optimizer(name, step, **changes))
    group = prepare(Workload(ModelSource(config), run)).group([Layout()])
    assert isinstance(group, TrainingGroup)
    return int(group.resident.optimizer[0])


def readings(run: Training, config: dict[str, Any] = CONFIG) -> GpuReadings:
    gpu = prepare(Workload(ModelSource(config), run))
    found = gpu.estimate(Layout(), 1, device_overhead(None, None)).pool("gpu").gpu
    assert found is not None
    return found


def allocated(run: Training) -> ByteRange:
    return readings(run).allocated


def moving_at_loss(run: Training) -> int:
    """Bytes of activations, logits and their gradients at the height of the loss."""
    prepared = prepare(Workload(ModelSource(CONFIG), run))
    found = prepared.estimate(Layout(), 1, device_overhead(None, None)).pool("gpu")
    loss = next(phase for phase in found.phases if phase.name == "loss")
    return sum(p.size.best_bytes for p in loss.parts if p.name == "activations")


@pytest.mark.parametrize(
    ("name", "bytes_per_parameter"),
    [
        ("sgd", 0),
        ("sgd-momentum", 2),
        ("adamw", 4),
        ("adamw-amsgrad", 6),
        ("lion", 2),
        ("lamb", 4),
        ("sophia", 4),
        ("rmsprop", 2),
        ("adagrad", 2),
        ("adadelta", 4),
        ("decoupled-adamw", 4),
        ("adamw-bnb", 8),
        ("lomo", 0),
    ],
)
def test_whole_states_are_bytes_for_each_parameter(name: str, bytes_per_parameter: int) -> None:
    assert states_bytes(name) == pytest.approx(bytes_per_parameter * COUNT, rel=1e-4)


def test_8_bit_states_are_a_byte_and_a_scale_in_256_with_embeddings_whole() -> None:
    table = TABLES // 2
    expected = 2 * (COUNT - table) * (1 + 4 / 256) + 8 * table
    assert states_bytes("adamw-8bit") == pytest.approx(expected, rel=1e-3)


def test_factored_states_are_next_to_nothing() -> None:
    assert states_bytes("adafactor") < COUNT * 4 // 1000


def test_muon_keeps_one_moment_of_hidden_matrices_and_two_of_the_rest() -> None:
    expected = 2 * (COUNT - TABLES - VECTORS) + 4 * (TABLES + VECTORS)
    assert states_bytes("muon") == pytest.approx(expected, rel=1e-3)


def test_the_norm_between_two_stacks_has_states_of_whole_elements_as_norms_of_blocks_have() -> None:
    # T5-base: 222,903,552 parameters, with one table and the weights of 62 norms.
    config = find_preset("google-t5/t5-base").config
    whole, tables, vectors = 222_903_552, 32_128 * 768, 62 * 768
    muon = 2 * (whole - tables - vectors) + 4 * (tables + vectors)

    assert states_bytes("muon", config) == pytest.approx(muon, rel=1e-4)
    assert states_bytes("adafactor", config) < whole * 4 // 100


def test_a_projected_gradients_states_shrink_with_its_rank() -> None:
    low, high = states_bytes("galore-adamw", rank=64), states_bytes("galore-adamw", rank=256)
    whole = 4 * (TABLES + VECTORS)
    assert low < high < states_bytes("adamw")
    assert high - whole == pytest.approx(4 * (low - whole), rel=0.01)


def test_every_optimizer_has_a_source_and_a_step() -> None:
    for name, kind in optimizers().items():
        assert kind.source, name
        assert kind.steps, name


def test_a_step_in_the_backward_pass_frees_each_gradient() -> None:
    run = training(checkpointing="full")
    within = replace(run, optimizer=Optimizer("adamw", "fused", in_backward=True))
    saved = allocated(run).best_bytes - allocated(within).best_bytes
    assert saved > COUNT  # more than half of 2 bytes for each


def test_an_average_and_a_master_copy_count_beside_the_weights() -> None:
    plain = allocated(training()).best_bytes
    average = allocated(training(states=StateTypes(moving_average="fp32"))).best_bytes
    assert average - plain == pytest.approx(4 * COUNT, rel=1e-3)


def test_a_fused_linear_loss_leaves_out_the_logits() -> None:
    run = training(checkpointing="full", micro_batch=4)
    full = moving_at_loss(run)
    fused = moving_at_loss(replace(run, kernels=Kernels(loss="fused-linear")))
    cut = moving_at_loss(replace(run, kernels=Kernels(loss="cut")))
    logits = 4 * 2048 * 128_256
    assert full - fused > 12 * logits
    assert cut <= fused


def test_a_loss_in_place_is_one_tensor_of_logits() -> None:
    """Liger's table: 1x the logits where plain cross entropy in fp32 takes 5x."""
    run = training(checkpointing="full", micro_batch=4)
    whole = moving_at_loss(run)
    in_place = moving_at_loss(replace(run, kernels=Kernels(loss="fused")))
    assert whole - in_place == pytest.approx(12 * 4 * 2048 * 128_256, rel=0.12)


def test_fused_norms_and_gates_save_less() -> None:
    run = training()
    fused = replace(run, kernels=Kernels(norm="fused", mlp="fused"))
    tokens, layers = 2048, 32
    # Of two norms the fp32 copy and the normalised one, less the input; and silu's result.
    saved = layers * tokens * (2 * (4 + 2 - 2) * 4096 + 2 * 14_336)
    assert moving_at_loss(run) - moving_at_loss(fused) == pytest.approx(saved, rel=0.03)


def test_compiled_code_is_estimated_within_a_wide_interval() -> None:
    found = allocated(training(kernels=Kernels(compile="blocks")))
    assert found.best_bytes - found.low_bytes > 2**30
    assert found.high_bytes > found.best_bytes


def test_a_limit_that_no_sample_may_reach_lowers_only_the_low_end() -> None:
    stated, limit = allocated(training()), allocated(training(seq_len_is_limit=True))
    assert limit.low_bytes < stated.low_bytes
    assert limit.best_bytes == stated.best_bytes


def test_varying_lengths_leave_blocks_cached_but_need_no_more() -> None:
    fixed = training(checkpointing="full", micro_batch=2)
    one, other = (
        prepare(Workload(ModelSource(CONFIG), run)).estimate(
            Layout(), 1, device_overhead(None, None)
        )
        for run in (fixed, replace(fixed, variable_lengths=True))
    )
    seen = [e.pool("gpu").gpu for e in (one, other)]
    assert seen[0] is not None
    assert seen[1] is not None
    assert seen[1].reserved.best_bytes > 1.2 * seen[0].reserved.best_bytes
    assert other.pool("gpu").peak.best_bytes == one.pool("gpu").peak.best_bytes


@pytest.mark.parametrize(
    ("preset", "rank", "micro", "base", "published"),
    [
        ("meta-llama/Meta-Llama-3-8B", 32, 1, "bf16", 19_730_006_016),
        ("mistralai/Mistral-7B-v0.1", 32, 2, "bf16", 20_659_973_810),
        ("mistralai/Mistral-7B-v0.1", 32, 2, "nf4", 14_290_000_439),
    ],
)
def test_litgpts_recipes_allocate_what_they_report(
    preset: str, rank: int, micro: int, base: str, published: int
) -> None:
    """litgpt config_hub/finetune/README.md: LoRA on query and value, 512 tokens, dropout 0.05."""
    nf4 = base == "nf4"
    run = Training(
        "bf16",
        Optimizer("paged-adamw" if nf4 else "adamw", "for-loop" if nf4 else "foreach"),
        micro,
        512,
        gradient_accumulation_steps=4,
        layout=Layout(),
        modeling_code="litgpt",
        adapter=Adapter("lora", rank, frozenset("qv"), dropout=0.05, dtype="bf16"),
        base_weights=BaseWeights(base, quantized_head=nf4, keeps_inputs=nf4),
    )
    found = readings(run, find_preset(preset).config).allocated
    assert found.best_bytes == pytest.approx(published, rel=0.06)
    assert found.low_bytes <= published <= found.high_bytes


def test_selective_checkpointing_lies_between_none_and_full() -> None:
    kinds = [moving_at_loss(training(checkpointing=kind)) for kind in ("full", "selective", "none")]
    assert kinds == sorted(kinds)


def test_the_operator_policy_keeps_every_other_product_and_attention() -> None:
    """torchtitan's policy: queries, values, one of gate and up, down, and the attention result."""
    tokens, layers = 2048, 32
    full = moving_at_loss(training(checkpointing="full"))
    kept = moving_at_loss(training(checkpointing="selective")) - full
    each = 2 * (4096 + 1024 + 14_336 + 4096) + 2 * 4096 + 4 * 32
    assert kept == pytest.approx(layers * tokens * each, rel=0.01)


def test_checkpointing_one_block_in_two_keeps_half_of_the_rest() -> None:
    full, none = (moving_at_loss(training(checkpointing=kind)) for kind in ("full", "none"))
    half = moving_at_loss(
        training(checkpointing="full", checkpoint_policy=CheckpointPolicy(every_layers=2))
    )
    assert half == pytest.approx((full + none) / 2, rel=0.01)


def test_offloaded_checkpoints_leave_no_hidden_states_of_blocks() -> None:
    full = moving_at_loss(training(checkpointing="full"))
    offloaded = moving_at_loss(
        training(checkpointing="full", checkpoint_policy=CheckpointPolicy(offload=True))
    )
    assert full - offloaded == pytest.approx(32 * 2048 * 4096 * 2, rel=0.01)


def test_preference_pairs_double_the_rows_and_a_reference_doubles_the_weights() -> None:
    plain = training(micro_batch=2, kernels=Kernels(loss="native"))
    pairs = training(preference=Preference("simpo", "none"))
    assert moving_at_loss(pairs) == moving_at_loss(plain)
    compared = training(preference=Preference("dpo", "model"), kernels=Kernels(loss="native"))
    more = allocated(compared).best_bytes - allocated(pairs).best_bytes
    assert more == pytest.approx(2 * COUNT, rel=1e-3)


def test_fp8_products_make_8_bit_copies_and_save_what_bf16_saves() -> None:
    narrow, half = training(precision="fp8"), training(precision="bf16-mixed")
    low, high = allocated(narrow), allocated(half)
    assert low.best_bytes == pytest.approx(high.best_bytes, rel=0.02)
    assert low.high_bytes - low.best_bytes > high.high_bytes - high.best_bytes


def test_packed_rows_need_a_mask_unless_the_kernel_takes_lengths() -> None:
    packed = training(packed=True)
    flash = replace(packed, attention="flash-attention-2")
    assert moving_at_loss(packed) > moving_at_loss(training())
    assert moving_at_loss(flash) <= moving_at_loss(training())


def test_paged_states_are_in_host_memory_and_not_among_the_tensors() -> None:
    assert states_bytes("paged-adamw-8bit") == 0
    run = training(optimizer=Optimizer("paged-adamw", "for-loop"))
    prepared = prepare(Workload(ModelSource(CONFIG), run))
    assert prepared.host_states(Layout()).offloaded == pytest.approx(8 * COUNT, rel=1e-3)


def test_copies_that_are_not_replayed_are_reserved_all_the_same() -> None:
    run = training(preference=Preference("dpo", "model"), states=StateTypes(moving_average="bf16"))
    prepared = prepare(Workload(ModelSource(CONFIG), run))
    found = prepared.estimate(Layout(), 1, device_overhead(None, None), replay=True)
    gpu = found.pool("gpu").gpu
    assert gpu is not None
    assert gpu.reserved.best_bytes >= gpu.allocated.best_bytes


@pytest.mark.parametrize(
    "preset", ["openai/gpt-oss-20b", "google/gemma-2-9b", "EleutherAI/gpt-j-6b"]
)
def test_flash_attention_makes_no_matrix_of_scores_where_the_family_takes_it(preset: str) -> None:
    config = find_preset(preset).config
    run = training(seq_len=8192, checkpointing="full")
    eager, flash = (
        readings(replace(run, attention=kernel), config).allocated.best_bytes
        for kernel in ("eager", "flash-attention-3")
    )
    heads = config.get("num_attention_heads") or config["n_head"]

    assert eager - flash > heads * 8192**2 * 2
    assert prepare(Workload(ModelSource(config), run)).parameter_count == (
        prepare(Workload(ModelSource(config), replace(run, attention="eager"))).parameter_count
    )


def test_a_window_is_no_mask_to_flash_attention() -> None:
    config = find_preset("mistralai/Mistral-7B-v0.1").config
    run = training(seq_len=16384, checkpointing="full", loop="trainer")
    masked, told = (
        readings(replace(run, attention=kernel), config).allocated.best_bytes
        for kernel in ("sdpa", "flash-attention-2")
    )

    assert masked - told > 16384**2


@pytest.mark.parametrize(
    ("preset", "gib"), [("mistralai/Mixtral-8x7B-v0.1", 22.3), ("openai/gpt-oss-120b", 56.6)]
)
def test_quantised_experts_are_half_a_byte_a_weight_and_their_scales(
    preset: str, gib: float
) -> None:
    # 0.516 bytes a weight of nf4 with double quantisation; tables and head at two.
    run = training(
        precision="bf16-mixed",
        checkpointing="full",
        adapter=Adapter("lora", 8, frozenset({"q", "v"})),
        base_weights=BaseWeights("nf4", double_quantization=True, quantized_experts=True),
    )
    group = prepare(Workload(ModelSource(find_preset(preset).config), run)).group([Layout()])
    assert isinstance(group, TrainingGroup)

    assert int(group.resident.weights[0]) / 2**30 == pytest.approx(gib, rel=0.03)
