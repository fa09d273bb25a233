"""Megatron-LM's layers that predict further tokens: what they add, and where they are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sizewright_server.estimation.estimator import PreparedWorkload, prepare
from sizewright_server.estimation.gpu_peaks import gpu_columns
from sizewright_server.estimation.layout import MegatronSettings
from sizewright_server.estimation.megatron_further import further_dims
from sizewright_server.estimation.parallel import ParallelColumns
from sizewright_server.estimation.pipeline import Position, stage_counts
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import Preference
from sizewright_server.estimation.training import TrainingGroup
from sizewright_server.estimation.workload import Layout, ModelSource, Optimizer, Training, Workload

V3 = find_preset("deepseek-ai/DeepSeek-V3").config
LLAMA = find_preset("meta-llama/Llama-3.2-1B").config
#: Sixteen stages of which the last has one layer, as the head and more layers stand there.
STAGES = Layout(
    dp=16,
    zero=1,
    ep=16,
    pp=16,
    sharding="megatron",
    megatron=MegatronSettings(last_stage_layers=1),
)
TWO_STAGES = replace(
    STAGES, pp=2, megatron=MegatronSettings(first_stage_layers=1, last_stage_layers=3)
)
ALONE = Layout(sharding="megatron", megatron=MegatronSettings(vocab_multiple=1))
RUN = Training("bf16", Optimizer("adamw", "fused"), 1, 4096, 16, layout=STAGES)

#: Megatron-LM's functional test of a mixture with latent attention and one further layer
#: (test_cases/moe/gpt3_moe_mcore_te_tp2_pp2_ep4_etp1_fine_grained_offloading, model_config.yaml),
#: and what its last rank allocated on H100s: after a step, and at most.
TESTED = {
    "model_type": "deepseek_v3",
    "hidden_size": 1024,
    "num_hidden_layers": 15,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 4096,
    "vocab_size": 50257,
    "tie_word_embeddings": False,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 32,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 1024,
    "n_shared_experts": 1,
    "first_k_dense_replace": 3,
}
TESTED_LAYOUT = Layout(
    dp=2,
    zero=1,
    tp=2,
    pp=2,
    ep=4,
    sharding="megatron",
    sequence_parallel=True,
    offload_activations=True,
    virtual_stages=4,
    megatron=MegatronSettings(
        vocab_multiple=3232,
        recompute_modules=("layernorm", "mla_up_proj", "mlp", "moe_act"),
        first_stage_layers=9,
        last_stage_layers=6,
        overlaps_experts=True,
    ),
)
STEADY_BYTES, PEAK_BYTES = 5_290_499_584, 8_320_577_024


def prepared(config: dict[str, Any], run: Training) -> PreparedWorkload:
    return prepare(Workload(ModelSource(config), run))


def last_stage(config: dict[str, Any], further: int, run: Training = RUN) -> TrainingGroup:
    run = replace(run, multi_token_prediction_layers=further)
    layout = run.layout
    assert layout is not None
    where: Position = "last" if layout.pp > 1 else "only"
    return TrainingGroup(prepared(config, run).model, run, [layout], (where,))


def peak(config: dict[str, Any], further: int, run: Training = RUN) -> int:
    return int(gpu_columns(last_stage(config, further, run)).allocated_best[0])


def refusal(config: dict[str, Any], run: Training) -> str:
    with pytest.raises(UnsupportedWorkload) as caught:
        prepared(config, run)
    return str(caught.value)


def test_the_last_rank_of_megatrons_own_test_holds_what_was_measured() -> None:
    run = Training(
        "bf16",
        Optimizer("adamw"),
        1,
        4096,
        4,
        "selective",
        "eager",
        layout=TESTED_LAYOUT,
        multi_token_prediction_layers=1,
    )
    made = prepared(TESTED, run)
    resident = TrainingGroup(made.model, run, [TESTED_LAYOUT], ("last",)).resident
    stages = made.estimate(TESTED_LAYOUT, 8, device_overhead("nvidia", "9.0")).pool("gpu").stages
    peak_bytes = stages[-1].allocated

    steady = resident.weights + resident.optimizer + resident.gradients_kept
    steady = steady + resident.stand_ins + resident.workspaces
    assert int(steady[0]) == pytest.approx(STEADY_BYTES, rel=0.015)
    assert peak_bytes.best_bytes == pytest.approx(PEAK_BYTES, rel=0.01)
    assert peak_bytes.low_bytes <= PEAK_BYTES <= peak_bytes.high_bytes


@pytest.mark.parametrize(("layers", "billions"), [(1, 11.610), (2, 23.220)])
def test_deepseek_v3s_further_layer_has_the_published_parameters(
    layers: int, billions: float
) -> None:
    # 685 billion with the copies of embedding and head that a checkpoint holds, 1.85 billion.
    run = replace(RUN, multi_token_prediction_layers=layers)
    more = prepared(V3, run).parameter_count - prepared(V3, RUN).parameter_count

    assert more / 1e9 == pytest.approx(billions, abs=0.001)


@pytest.mark.parametrize("config", [V3, LLAMA], ids=["DeepSeek-V3", "Llama-3.2-1B"])
def test_one_ranks_weights_grow_by_just_these_parameters(config: dict[str, Any]) -> None:
    run = replace(RUN, layout=ALONE, gradient_accumulation_steps=1)
    counts = [
        prepared(config, replace(run, multi_token_prediction_layers=n)).parameter_count
        for n in (0, 2)
    ]
    weights = [int(last_stage(config, n, run).states.weights()[0]) for n in (0, 2)]

    assert weights[1] - weights[0] == 2 * (counts[1] - counts[0])


def test_the_last_stage_has_a_copy_of_the_embedding_and_the_others_nothing() -> None:
    table = 129_280 * 7168
    further = prepared(V3, replace(RUN, multi_token_prediction_layers=1))
    without = prepared(V3, RUN)
    (first, more) = (last_stage(V3, n).states for n in (0, 1))
    one_layer = further.parameter_count - without.parameter_count
    own = one_layer - 240 * 3 * 7168 * 2048  # a rank has 16 of 256 experts

    assert int((more.weights() - first.weights())[0]) == pytest.approx(2 * (own + table), rel=1e-4)
    made = [TrainingGroup(p.model, RUN, [STAGES], ("first",)) for p in (without, further)]
    assert int(made[0].states.weights()[0]) == int(made[1].states.weights()[0])


def test_each_depth_keeps_the_fp32_logits_of_its_own_loss() -> None:
    run = replace(RUN, checkpointing="full")
    states = [last_stage(LLAMA, n, replace(run, layout=ALONE)).resident.weights for n in (1, 2)]
    grown = peak(LLAMA, 2, replace(run, layout=ALONE)) - peak(LLAMA, 1, replace(run, layout=ALONE))

    # Weights, fp32 gradients, and master, mean and variance: 18 bytes a parameter.
    logits = 4096 * LLAMA["vocab_size"] * 4
    beside = grown - 9 * int((states[1] - states[0])[0])
    assert beside == pytest.approx(logits, rel=0.1)


def test_a_projections_parts_are_gathered_where_ranks_share_it() -> None:
    layouts = [replace(ALONE, tp=tp) for tp in (1, 2, 4)]
    dims = further_dims(np.array([128_256] * 3), 2048, ParallelColumns.of(layouts))

    assert dims["HT"].tolist() == [2048, 1024, 512]
    assert dims["HP"].tolist() == [0, 1024, 512]


def test_full_recomputation_keeps_what_a_further_layer_is_given_alone() -> None:
    kept = []
    for kind in ("none", "full"):
        group = last_stage(LLAMA, 1, replace(RUN, layout=ALONE, checkpointing=kind))
        without = last_stage(LLAMA, 0, replace(RUN, layout=ALONE, checkpointing=kind))
        saved = [int(g.walks.delta_bytes[len(g.segments) - 1, 0]) for g in (group, without)]
        kept.append(saved[0] - saved[1])

    logits, hidden = 4096 * LLAMA["vocab_size"] * 4, 4096 * 2048 * 2
    # Another loss, the embeddings, the states before, and both depths' side by side for one.
    assert kept[1] == pytest.approx(logits + 3 * hidden, abs=hidden / 2)
    assert kept[0] - kept[1] > 10 * hidden


def test_micro_batches_that_overlap_hold_both_passes_temporaries() -> None:
    layout = replace(ALONE, dp=8, zero=1, ep=8)
    mixture = find_preset("mistralai/Mixtral-8x7B-v0.1").config
    run = replace(RUN, layout=layout, checkpointing="full")
    over = replace(layout, megatron=replace(layout.megatron, overlaps_experts=True))

    alone, both = (peak(mixture, 0, replace(run, layout=each)) for each in (layout, over))
    group = last_stage(mixture, 0, run)
    block = next(i for i, segment in enumerate(group.segments) if segment.repeats)
    passing = group.walks.peak_bytes[block, 0] - group.walks.delta_bytes[block, 0]
    assert both - alone == int(passing)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((0, 0), [4, 4, 4, 4]),
        ((3, 0), [3, 4, 4, 4]),
        ((0, 1), [4, 4, 4, 1]),
        ((3, 2), [3, 4, 4, 2]),
    ],
)
def test_stages_at_the_ends_have_the_layers_that_are_stated(
    ends: tuple[int, int], expected: list[int]
) -> None:
    layers = {**LLAMA, "num_hidden_layers": sum(expected)}
    group = last_stage(layers, 0, replace(RUN, layout=ALONE))
    four = group.nothing + 4

    found = [
        int(stage_counts(group.segments, four, four // 4, four * 0 + stage, ends)[1][0])
        for stage in range(4)
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layout": None}, "multi_token_prediction_layers: layers that predict further tokens are"),
        ({"layout": Layout(dp=8, zero=3, sharding="fsdp2")}, "trained by Megatron-LM"),
        (
            {"layout": replace(STAGES, megatron=MegatronSettings())},
            "61 layers do not divide by 16 chunks, as Megatron-LM requires; state"
            " megatron.decoder_first_pipeline_num_layers",
        ),
        (
            {"layout": replace(STAGES, megatron=MegatronSettings(last_stage_layers=2))},
            "decoder_last_pipeline_num_layers: leaves 59 layers for 15 other stages",
        ),
        ({"layout": TWO_STAGES}, "both stages together have 4 layers of 61"),
        ({"preference": Preference("dpo", "model")}, "has no loss for further tokens"),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, Any], words: str) -> None:
    run = replace(RUN, multi_token_prediction_layers=1, **changes)
    assert words in refusal(V3, run)


def test_models_with_learned_positions_or_two_stacks_are_refused() -> None:
    run = replace(RUN, layout=ALONE, multi_token_prediction_layers=1)

    assert "not with learned ones" in refusal(find_preset("openai-community/gpt2").config, run)
    assert "are of decoders alone" in refusal(find_preset("facebook/bart-base").config, run)


def test_sparse_attention_is_not_described_in_megatrons_layers() -> None:
    sparse = find_preset("deepseek-ai/DeepSeek-V3.2").config

    words = refusal(sparse, replace(RUN, layout=STAGES))
    assert "the sparse attention of deepseek_v32 is not described in Megatron-LM's layers" in words
