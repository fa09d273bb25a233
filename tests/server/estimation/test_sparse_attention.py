"""DeepSeek-V3.2 and GLM-5 in training: how the indexer is counted, shared out and refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sizewright_server.estimation.adapter_targets import adapter_targets
from sizewright_server.estimation.estimator import PreparedWorkload, prepare
from sizewright_server.estimation.gpu_peaks import gpu_columns
from sizewright_server.estimation.layout import FsdpSettings
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import Adapter, BaseWeights
from sizewright_server.estimation.training import TrainingGroup
from sizewright_server.estimation.walks import walk
from sizewright_server.estimation.workload import Layout, ModelSource, Optimizer, Training, Workload

V32, GLM5 = "deepseek-ai/DeepSeek-V3.2", "zai-org/GLM-5"
#: Of one layer: wq_b 1,536 x 8,192, wk 7,168 x 128, a norm of 128 with its bias, weights_proj
#: 7,168 x 64.
INDEXER_OF_V32 = 13_959_424
RUN = Training("bf16", Optimizer("adamw"), 1, 4096, checkpointing="full")


def prepared(name: str, run: Training = RUN, **changes: Any) -> PreparedWorkload:
    return prepare(Workload(ModelSource(find_preset(name).config | changes), run))


def group(name: str, layout: Layout, run: Training = RUN, **changes: Any) -> TrainingGroup:
    made = prepared(name, run, **changes).group([layout])
    assert isinstance(made, TrainingGroup)
    return made


def refusal(name: str, run: Training = RUN, **changes: Any) -> str:
    with pytest.raises(UnsupportedWorkload) as caught:
        prepared(name, run, **changes)
    return str(caught.value)


@pytest.mark.parametrize(("name", "count"), [(V32, 671_877_929_216), (GLM5, 743_911_199_232)])
def test_parameters_are_those_counted_on_the_meta_device(name: str, count: int) -> None:
    assert prepared(name).parameter_count == count


def test_the_explanation_names_the_indexer_with_its_formula() -> None:
    overhead = device_overhead(None, None)
    made = prepared(GLM5).estimate(Layout(dp=512, zero=3, sharding="fsdp2"), 8, overhead)

    phases = made.pool("gpu").phases
    running = [part for phase in phases for part in phase.parts if part.name == "activations"]
    inner = [part for whole in running for part in whole.parts if part.name == "indexer"]
    assert inner
    assert "heads of the indexer" in inner[0].formula


def test_the_indexer_trains_nothing_and_has_no_optimizer_state() -> None:
    sparse = prepared(V32)

    assert sparse.parameter_count - sparse.trainable_parameter_count == 61 * INDEXER_OF_V32


def test_every_tensor_parallel_rank_has_the_whole_indexer() -> None:
    def weights(tp: int, **changes: Any) -> int:
        return int(group(V32, Layout(tp=tp), **changes).states.weights()[0])

    # Four heads of the indexer less leave as many bytes away on one rank as on each of eight.
    fewer = {"index_n_heads": 60}
    assert weights(1) - weights(1, **fewer) == weights(8) - weights(8, **fewer)


def test_zero_stage_3_splits_the_indexer_as_all_else() -> None:
    def weights(layout: Layout, **changes: Any) -> int:
        return int(group(V32, layout, **changes).states.weights()[0])

    sharded = Layout(dp=8, zero=3, sharding="fsdp2")
    fewer = {"index_n_heads": 60}
    whole = weights(Layout()) - weights(Layout(), **fewer)
    assert weights(sharded) - weights(sharded, **fewer) == pytest.approx(whole / 8, rel=0.001)


#: Optimizer state of one of eight ranks as traced with a fake process group (torch 2.13): 6 layers
#: of 512, a tiny DeepSeek-V3.2 in fp32 with AdamW. FSDP1's flat parameters have the indexer's too.
TRACED_STATES = {"fsdp2": 48_412_672, "fsdp1": 49_168_896, "deepspeed": 49_168_896}
TINY = {
    "model_type": "deepseek_v32",
    "hidden_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "num_hidden_layers": 6,
    "intermediate_size": 1536,
    "moe_intermediate_size": 256,
    "n_routed_experts": 16,
    "num_experts_per_tok": 4,
    "q_lora_rank": 192,
    "kv_lora_rank": 128,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
    "index_n_heads": 8,
    "index_head_dim": 64,
    "index_topk": 128,
    "vocab_size": 8000,
    "first_k_dense_replace": 1,
}


@pytest.mark.parametrize("library", TRACED_STATES)
def test_flat_buffers_have_states_of_the_indexer_too(library: Any) -> None:
    layout = Layout(dp=8, zero=3, sharding=library)
    precision: Any = "fp32" if library == "deepspeed" else "bf16-mixed"
    run = Training(precision, Optimizer("adamw", "fused"), 1, 512, layout=layout)
    group = prepare(Workload(ModelSource(TINY), run)).group([layout])

    assert isinstance(group, TrainingGroup)
    master = group.states.total(4, 1) if library == "deepspeed" else 0
    states = group.states.optimizer(run.optimizer) - master
    assert int(states[0]) == pytest.approx(TRACED_STATES[library], rel=0.002)


def test_a_unit_with_an_indexer_is_no_mixture_of_frozen_and_trained() -> None:
    def peak(original: bool) -> int:
        units = FsdpSettings(use_orig_params=original)
        layout = Layout(dp=512, zero=3, sharding="fsdp1", fsdp=units)
        return int(gpu_columns(group(V32, layout)).allocated_best[0])

    # Traced alike on eight ranks: 279,471,616 bytes and 279,433,216.
    assert peak(original=True) == peak(original=False)


def test_several_samples_copy_the_indexers_keys_for_every_query() -> None:
    def rises(micro_batch: int) -> int:
        run = replace(RUN, micro_batch=micro_batch, seq_len=2048)
        block = group(V32, Layout(), run).forward_stages[2]
        return int(walk(block.events, block.sizes).peak_bytes[0])

    # One sample's scores of 64 heads, 1 GiB, are there twice. Of two samples 2 x 2,048 queries have
    # 128 x 2,048 keys each, 4 GiB, while the scores of 2 GiB are made for the first time.
    copies, scores = 4 * 2**30, 2**30
    assert rises(2) - 2 * rises(1) == pytest.approx(copies + 2 * scores - 4 * scores, rel=0.07)


def test_checkpoints_of_glm_5_keep_the_keys_that_each_block_chose() -> None:
    def held(name: str) -> int:
        stages = group(name, Layout(), replace(RUN, micro_batch=2)).forward_stages
        block = stages[2]
        signs, storages = block.events.signs, block.events.storages
        return int((signs * block.sizes[storages, 0]).sum())

    # 2 x 4,096 tokens: hidden states of 6,144 (7,168) in 16 bit, and 2,048 numbers of 32 bit.
    assert held(GLM5) == 8192 * (6144 * 2 + 2048 * 4)
    assert held(V32) == 8192 * 7168 * 2


def test_layers_that_share_a_choice_have_no_indexer() -> None:
    every, some = prepared(GLM5), prepared(GLM5, index_topk_freq=4)

    # The first layer chooses, and every fourth from the second on: 21 of 78.
    of_one = 2048 * 32 * 128 + 6144 * 128 + 2 * 128 + 6144 * 32
    assert every.parameter_count - some.parameter_count == 57 * of_one


def test_adapters_find_latent_attention_and_are_counted_on_the_indexer() -> None:
    def trained(*names: str) -> int:
        adapter = Adapter("lora", 8, adapter_targets(names, "lora"))
        run = replace(RUN, adapter=adapter, base_weights=BaseWeights("bf16"))
        return prepared(V32, run).trainable_parameter_count

    assert trained("q_a_proj") == 61 * 8 * (7168 + 1536)
    assert trained("kv_b_proj") == 61 * 8 * (512 + 128 * 256)
    # Adapters of the indexer get no gradients, as the indexer runs without any.
    assert trained("q_a_proj", "wq_b", "wk", "weights_proj") == trained("q_a_proj")


@pytest.mark.parametrize("kernel", ["flash-attention-2", "flash-attention-3"])
def test_flash_attention_is_refused_with_what_runs(kernel: Any) -> None:
    words = refusal(V32, replace(RUN, attention=kernel))

    assert "workload.training.attention: transformers runs the sparse attention" in words
    assert "use sdpa or eager" in words


@pytest.mark.parametrize("method", ["ring", "ulysses"])
def test_context_parallelism_is_refused_and_not_tried(method: Any) -> None:
    split = Layout(dp=1, cp=2, zero=3, sharding="fsdp2", context_method=method)

    assert "the indexer of glm_moe_dsa chooses among all keys" in refusal(
        GLM5, replace(RUN, layout=split)
    )
    long = prepared(GLM5, replace(RUN, seq_len=32_768))
    assert {layout.cp for layout in long.layouts_for(16, 8)} == {1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"index_topk": 0}, "index_topk must be a whole number above 0, not 0"),
        ({"indexer_types": ["full"]}, "indexer_types names 1 layers of 78"),
        ({"index_topk_pattern": "SF" * 39}, "the first layer is shared, but none before it"),
        ({"index_topk_pattern": "FX" * 39}, "indexer_types: 'X' is neither full nor shared"),
        ({"mlp_layer_types": ["dense"]}, "mlp_layer_types names 1 layers of 78"),
        ({"index_topk_freq": "often"}, "index_topk_freq must be a whole number, not 'often'"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    assert words in refusal(GLM5, **changes)


@pytest.mark.parametrize(
    ("name", "billions"), [("deepseek-ai/DeepSeek-V3", 36.6), ("mistralai/Mixtral-8x7B-v0.1", 12.7)]
)
def test_only_the_chosen_experts_of_a_token_are_active(name: str, billions: float) -> None:
    # 37 and 12.9 billion as published, less the embedding, which multiplies nothing.
    assert prepared(name).work.active_parameters / 1e9 == pytest.approx(billions, abs=0.05)


def test_an_adapter_on_the_indexer_alone_is_refused_since_it_never_trains() -> None:
    adapter = Adapter("lora", 8, adapter_targets(("wq_b", "wk"), "lora"))

    assert "the indexer of glm_moe_dsa runs without gradients" in refusal(
        GLM5, replace(RUN, adapter=adapter)
    )
