"""Megatron Core's layers and arguments, by sums from its own source (megatron-core 0.16)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sizewright_server.estimation.adapter_targets import adapter_targets
from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.layout import MegatronSettings
from sizewright_server.estimation.memory import MemoryEstimate
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import Adapter
from sizewright_server.estimation.training import TrainingGroup
from sizewright_server.estimation.walks import walk
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

TOKENS = 4096
MEGATRON = Layout(dp=8, zero=1, sharding="megatron")


def configs(*names: str) -> pytest.MarkDecorator:
    found = [find_preset(name).config for name in names]
    return pytest.mark.parametrize("config", found, ids=names)


LATENT = configs(
    "deepseek-ai/DeepSeek-V2-Lite", "deepseek-ai/DeepSeek-V2", "deepseek-ai/DeepSeek-V3"
)
SPARSE = configs(
    "mistralai/Mixtral-8x7B-v0.1", "mistralai/Mixtral-8x22B-v0.1", "Qwen/Qwen3-30B-A3B"
)
DENSE = configs("meta-llama/Llama-3.2-1B", "meta-llama/Meta-Llama-3-8B", "Qwen/Qwen2.5-14B")
MIXTRAL = find_preset("mistralai/Mixtral-8x7B-v0.1").config
LLAMA = find_preset("meta-llama/Meta-Llama-3-8B").config


def workload(config: dict[str, Any], layout: Layout, **changes: Any) -> Workload:
    run = Training("bf16", Optimizer("adamw", "fused"), 1, TOKENS, layout=layout)
    return Workload(ModelSource(config), replace(run, **changes))


def group_of(config: dict[str, Any], layout: Layout = MEGATRON, **changes: Any) -> TrainingGroup:
    group = prepare(workload(config, layout, **changes)).group([layout])
    assert isinstance(group, TrainingGroup)
    return group


def estimate(config: dict[str, Any], layout: Layout = MEGATRON, **changes: Any) -> MemoryEstimate:
    prepared = prepare(workload(config, layout, **changes))
    return prepared.estimate(layout, 8, device_overhead("nvidia", "9.0"))


def saved(config: dict[str, Any], *modules: Any, **changes: Any) -> int:
    """Bytes that one of the model's last blocks keeps, with modules that run again."""
    layout = replace(MEGATRON, megatron=MegatronSettings(recompute_modules=modules))
    kind = "selective" if modules else "none"
    group = group_of(config, layout, checkpointing=kind, **changes)
    index = max(i for i, segment in enumerate(group.segments) if segment.repeats)
    stage = group.forward_stages[index]
    return int(walk(stage.events, stage.sizes).delta_bytes[0])


def refusals(config: dict[str, Any], settings: MegatronSettings, **changes: Any) -> dict[str, str]:
    layout = replace(changes.pop("layout", MEGATRON), megatron=settings)
    with pytest.raises(UnsupportedWorkload) as caught:
        prepare(workload(config, layout, **changes))
    prefix = "workload.training.parallelism.explicit.megatron."
    return {v.field.removeprefix(prefix): v.description for v in caught.value.violations}


# -- recomputation by module --------------------------------------------------------------------


@DENSE
def test_a_recomputed_mlp_keeps_its_norms_input_alone(config: dict[str, Any]) -> None:
    hidden, inner = config["hidden_size"], config["intermediate_size"]

    # Normed input, gate and up, their product; one fp32 number a token of the RMS norm.
    assert saved(config) - saved(config, "mlp") == TOKENS * (2 * hidden + 2 * 3 * inner + 4)


@DENSE
def test_recomputed_attention_keeps_no_matrix_of_scores(config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    changes: dict[str, Any] = {"attention": "eager"}

    dropped = saved(config, **changes) - saved(config, "core_attn", **changes)

    # The softmax' result, and the mixed values before their heads are put side by side.
    assert dropped == pytest.approx(2 * heads * TOKENS * TOKENS, rel=0.02)


@SPARSE
def test_a_recomputed_activation_keeps_nothing_for_the_experts_second_product(
    config: dict[str, Any],
) -> None:
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    rows = TOKENS * config["num_experts_per_tok"]

    assert saved(config) - saved(config, "moe_act") == 2 * rows * width


@SPARSE
def test_a_recomputed_layer_norm_is_the_one_before_the_experts(config: dict[str, Any]) -> None:
    # Attention's own norm is part of its first linear layer in Transformer Engine.
    assert saved(config) - saved(config, "layernorm") == pytest.approx(
        TOKENS * 2 * config["hidden_size"], rel=0.01
    )


@SPARSE
def test_recomputed_experts_keep_the_normed_tokens_alone(config: dict[str, Any]) -> None:
    hidden, chosen = config["hidden_size"], config["num_experts_per_tok"]
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    experts = config.get("num_local_experts") or config["num_experts"]
    rows = TOKENS * chosen

    dropped = saved(config) - saved(config, "moe")

    # Permuted rows, gate and up, their product; scores in fp32 and the chosen experts.
    assert dropped == 2 * rows * (hidden + 3 * width) + TOKENS * (4 * experts + 8 * chosen)


@LATENT
def test_recomputed_projections_keep_the_latent_vectors_alone(config: dict[str, Any]) -> None:
    heads, rank = config["num_attention_heads"], config["kv_lora_rank"]
    keys = config["qk_nope_head_dim"] + config["qk_rope_head_dim"]
    ranks = rank + (config.get("q_lora_rank") or 0)
    norms = 1 + bool(config.get("q_lora_rank"))

    dropped = saved(config) - saved(config, "mla_up_proj")

    # Queries, keys and values of all heads; normed latent vectors and their statistics.
    heads_bytes = 2 * heads * (2 * keys + config["v_head_dim"])
    assert dropped == TOKENS * (heads_bytes + 2 * ranks + 4 * norms)


def test_modules_add_up_and_a_backward_pass_makes_each_again() -> None:
    config = find_preset("deepseek-ai/DeepSeek-V2-Lite").config
    whole = saved(config)
    each = sum(whole - saved(config, name) for name in ("layernorm", "mla_up_proj", "moe_act"))

    together = saved(config, "layernorm", "mla_up_proj", "moe_act")

    assert whole - together == pytest.approx(each, rel=0.03)
    layout = replace(MEGATRON, megatron=MegatronSettings(recompute_modules=("moe_act", "moe")))
    group = group_of(config, layout, checkpointing="selective")
    for segment in group.segments:
        if segment.repeats:
            passes = segment.program.forward, segment.program.backward_accumulating
            left = sum(int(walk(one, group._sizes(segment)).delta_bytes[0]) for one in passes)
            assert left == 0, "a block leaves nothing once its gradients are added"


# -- other arguments ----------------------------------------------------------------------------


@LATENT
def test_latent_layers_have_every_parameter_of_the_model(config: dict[str, Any]) -> None:
    prepared = prepare(workload(config, MEGATRON))
    group = group_of(config)
    scores = sum(  # corrections of the router's scores, which do not train
        segment.count * config["n_routed_experts"]
        for segment in group.segments
        if "topk_method" in config and config["topk_method"] == "noaux_tc" and segment.repeats
    )

    padded = -(-config["vocab_size"] // 128) * 128 - config["vocab_size"]
    spare = 2 * padded * config["hidden_size"]
    found = int(group.states.total(1)[0])
    assert found - spare == pytest.approx(prepared.parameter_count, abs=scores + 1)


@SPARSE
def test_experts_are_split_over_fewer_ranks_than_other_layers_when_told(
    config: dict[str, Any],
) -> None:
    spread = replace(MEGATRON, dp=4, tp=2, ep=4, sequence_parallel=True)
    own = replace(spread, megatron=MegatronSettings(expert_tensor_parallel_size=1))
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    experts = config.get("num_local_experts") or config["num_experts"]
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]

    weights = [int(group_of(config, one).resident.weights[0]) for one in (own, spread)]

    # A rank of 8 has a quarter of the experts, whole or halved over tensor-parallel ranks.
    assert weights[0] - weights[1] == layers * 2 * (experts // 4) * 3 * hidden * width // 2


def test_a_capacity_bounds_what_the_busiest_rank_gets() -> None:
    spread = replace(MEGATRON, ep=8)

    def rows(**settings: Any) -> tuple[int, int]:
        layout = replace(spread, megatron=MegatronSettings(**settings))
        gpu = estimate(MIXTRAL, layout).pool("gpu").gpu
        assert gpu is not None
        return gpu.allocated.best_bytes, gpu.allocated.high_bytes

    free, bounded = rows(), rows(expert_capacity_factor=1.0)
    padded = rows(expert_capacity_factor=1.0, pad_to_capacity=True)
    wide = rows(expert_capacity_factor=4.0, pad_to_capacity=True)

    assert bounded[0] < free[0]
    assert bounded[1] < free[1]
    assert padded == bounded
    assert wide[0] > free[1]


@DENSE
def test_fp8_keeps_two_copies_of_the_weights_unless_they_are_gathered_in_it(
    config: dict[str, Any],
) -> None:
    gathered = replace(MEGATRON, megatron=MegatronSettings(fp8_param_gather=True))
    group = group_of(config, precision="fp8")
    blocks = sum(
        segment.count * int(group.states.tensors.table.elements[group.states.tensors.of(i)].sum())
        for i, segment in enumerate(group.segments)
        if segment.repeats
    )

    held = int(group.resident.narrow_weights[0])

    assert held == pytest.approx(2 * blocks, rel=1e-3)
    assert int(group_of(config, gathered, precision="fp8").resident.narrow_weights[0]) == 0
    assert saved(config, precision="fp8") < saved(config)


@DENSE
def test_a_precision_aware_optimizer_keeps_10_bytes_a_parameter(config: dict[str, Any]) -> None:
    aware = replace(MEGATRON, megatron=MegatronSettings(precision_aware_optimizer=True))
    group, usual = group_of(config, aware), group_of(config)
    count = int(usual.states.total(1)[0])

    # The 16 bits that a bf16 weight lacks, and two fp32 moments, over 8 ranks.
    assert int(usual.resident.optimizer[0]) == pytest.approx(12 * count / 8, rel=1e-3)
    assert int(group.resident.optimizer[0]) == pytest.approx(10 * count / 8, rel=1e-3)


@DENSE
def test_an_adapter_has_fp32_gradients_and_a_master_copy_and_no_others(
    config: dict[str, Any],
) -> None:
    adapter = Adapter("lora", 8, adapter_targets(["all-linear"], "lora"), dtype="bf16")
    group = group_of(config, adapter=adapter, checkpointing="full")
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    joint = size * (heads + 2 * config["num_key_value_heads"])
    sides = (hidden + joint) + (heads * size + hidden) + (hidden + 2 * inner) + (inner + hidden)

    trained = int(group.states.total(1)[0])

    assert trained == 8 * sides * config["num_hidden_layers"]
    assert int(group.resident.gradients_kept[0]) == pytest.approx(4 * trained, rel=1e-2)
    assert int(group.resident.optimizer[0]) == pytest.approx(12 * trained / 8, rel=2e-2)


def test_offloaded_module_inputs_wait_in_host_memory() -> None:
    config = find_preset("deepseek-ai/DeepSeek-V2-Lite").config
    away = replace(MEGATRON, offload_activations=True)
    here, there = (group_of(config, layout) for layout in (MEGATRON, away))
    kept = [
        sum(int(walk(s.events, s.sizes).delta_bytes[0]) * int(s.count[0]) for s in g.forward_stages)
        for g in (here, there)
    ]

    assert kept[0] - kept[1] == there.moved_bytes()
    host = [estimate(config, one).pool("host").peak.best_bytes for one in (MEGATRON, away)]
    assert host[1] - host[0] >= there.moved_bytes()


def test_contradictory_arguments_are_refused_with_the_reason() -> None:
    selective: dict[str, Any] = {"checkpointing": "selective"}
    modules = MegatronSettings(recompute_modules=("mla_up_proj", "moe_act"))

    found = refusals(LLAMA, modules, **selective)["recompute_modules"]
    assert "multi-latent attention" in found or "no experts" in found
    assert (
        "selective"
        in refusals(LLAMA, replace(modules, recompute_modules=("mlp",)))["recompute_modules"]
    )
    assert (
        "precision is bf16"
        in refusals(LLAMA, MegatronSettings(fp8_param_gather=True))["fp8_param_gather"]
    )
    assert (
        "distributed optimizer"
        in refusals(
            LLAMA,
            MegatronSettings(precision_aware_optimizer=True),
            layout=replace(MEGATRON, zero=0),
        )["precision_aware_optimizer"]
    )
    assert (
        "no experts"
        in refusals(LLAMA, MegatronSettings(expert_capacity_factor=1.5))["expert_capacity_factor"]
    )
    assert (
        "does not divide"
        in refusals(MIXTRAL, MegatronSettings(expert_tensor_parallel_size=3))[
            "expert_tensor_parallel_size"
        ]
    )
    assert (
        "needs expert_capacity_factor"
        in refusals(MIXTRAL, MegatronSettings(pad_to_capacity=True))["pad_expert_input_to_capacity"]
    )
    assert (
        "delayed scaling"
        in refusals(
            MIXTRAL, MegatronSettings(recompute_modules=("moe_act",)), precision="fp8", **selective
        )["recompute_modules"]
    )
