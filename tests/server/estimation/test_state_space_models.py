"""Mamba, Falcon-Mamba, Jamba and Nemotron-H in training: their two ways, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import pytest

from sizewright_server.estimation.estimator import PreparedWorkload, prepare
from sizewright_server.estimation.gpu_peaks import gpu_columns
from sizewright_server.estimation.inference import InferenceGroup
from sizewright_server.estimation.layouts import possible_layouts
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import Adapter, Kernels
from sizewright_server.estimation.training import TrainingGroup
from sizewright_server.estimation.workload import (
    Inference,
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

MAMBA = "state-spaces/mamba-370m-hf"
NANO = "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"
JAMBA = "ai21labs/Jamba-v0.1"
FUSED, EAGER = Kernels(recurrence="fused"), Kernels(recurrence="eager")


def training(kernels: Kernels = FUSED, **more: Any) -> Training:
    return Training("bf16", Optimizer("adamw"), 2, 1024, kernels=kernels, **more)


def prepared(name: str, run: Training, **changes: Any) -> PreparedWorkload:
    return prepare(Workload(ModelSource(find_preset(name).config | changes), run))


def refusal(name: str, run: Training, **changes: Any) -> str:
    with pytest.raises(UnsupportedWorkload) as caught:
        prepared(name, run, **changes)
    return str(caught.value)


def allocated(name: str, kernels: Kernels) -> tuple[int, int, int]:
    columns = gpu_columns(prepared(name, training(kernels)).group([Layout()]))
    return (
        int(columns.allocated_low[0]),
        int(columns.allocated_best[0]),
        int(columns.allocated_high[0]),
    )


def notices(name: str, kernels: Kernels) -> set[str]:
    overhead = device_overhead(None, None)
    made = prepared(name, training(kernels)).estimate(Layout(), 1, overhead)
    return {notice.code for notice in made.notices}


@pytest.mark.parametrize("name", [MAMBA, NANO, JAMBA])
def test_a_run_that_does_not_say_how_it_scans_is_unsure_over_both_ways(name: str) -> None:
    low, best, high = allocated(name, Kernels())
    fused, eager = allocated(name, FUSED), allocated(name, EAGER)

    assert best == fused[1]
    assert low <= fused[0]
    assert high >= max(fused[2], eager[1])


def test_without_kernels_every_state_of_every_token_is_kept() -> None:
    """Four tensors of 4 bytes and one of 2 for each of 16 states, 2,048 channels and 48 layers:
    decays, inputs' weights and states of a token, and a copy of the states for the product."""
    states = 2 * 1024 * 2048 * 16 * 48
    more = allocated(MAMBA, EAGER)[1] - allocated(MAMBA, FUSED)[1]

    assert 3 * 4 * states < more < 4 * 4 * states


def test_the_answer_says_that_the_way_is_not_stated() -> None:
    assert "recurrence-not-stated" in notices(MAMBA, Kernels())
    assert "recurrence-not-stated" not in notices(MAMBA, FUSED)


def test_a_pattern_of_letters_says_what_each_layer_is() -> None:
    blocks = [run for run in prepared(NANO, training()).model.runs if run.role == "block"]
    kinds: Counter[str] = Counter()
    for run in blocks:
        kinds[run.name.rsplit("-block", 1)[0]] += run.count

    assert kinds == {"mamba": 23, "experts": 23, "attention": 6}


def test_names_of_layers_say_the_same_as_letters() -> None:
    letters = {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}
    pattern = find_preset(NANO).config["hybrid_override_pattern"]
    names = [letters[letter] for letter in pattern]

    assert prepared(NANO, training(), layers_block_type=names).parameter_count == 31_577_937_344


def test_jamba_attends_in_one_layer_of_eight_and_has_experts_in_every_other() -> None:
    runs = [run for run in prepared(JAMBA, training()).model.runs if run.role == "block"]

    assert sum(run.count for run in runs if run.style.mixer == "attention") == 4
    assert sum(run.count for run in runs if run.style.experts) == 16


def test_only_layers_that_attend_have_work_that_grows_with_the_square_of_the_tokens() -> None:
    assert prepared(MAMBA, training()).work.attention_flops == 0
    scores = 4 * 0.5 * 1024 * 1024 * 4096
    assert prepared(JAMBA, training()).work.attention_flops == 4 * scores


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hybrid_override_pattern": "MX-"}, "letters of the pattern: M - * E"),
        ({"layers_block_type": ["mamba", "conv"]}, "layers_block_type names conv"),
        ({"n_groups": 3}, "mamba_num_heads 64 is not a multiple of n_groups 3"),
        ({"mamba_hidden_act": "gelu"}, "mamba_hidden_act 'gelu' is not built"),
        ({"ssm_state_size": None}, ""),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused_by_its_field(
    changes: dict[str, Any], reason: str
) -> None:
    if not reason:
        # What is left out has the default of the configuration class.
        assert prepared(NANO, training(), **changes).parameter_count == 31_577_937_344
        return
    assert reason in refusal(NANO, training(), **changes)


def test_offsets_beyond_jambas_period_are_refused() -> None:
    words = refusal(JAMBA, training(), attn_layer_offset=8)

    assert "attn_layer_offset 8 must be below attn_layer_period 8" in words


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        (Layout(dp=2, tp=2), "Mamba layers have no tensor-parallel form"),
        (Layout(dp=2, cp=2, zero=3, sharding="fsdp2"), "hand a state from token to token"),
        (Layout(dp=4, sharding="megatron"), "recurrent layers are not described"),
    ],
)
def test_layouts_that_no_library_has_for_mamba_are_refused(layout: Layout, reason: str) -> None:
    assert reason in refusal(MAMBA, training(layout=layout))


def test_a_search_tries_neither_tensor_nor_context_parallelism() -> None:
    run = Training("bf16", Optimizer("adamw"), 1, 32768, kernels=FUSED)
    found = possible_layouts(prepared(NANO, run).legal, 8, 8)

    assert {(layout.tp, layout.cp) for layout in found} == {(1, 1)}
    assert {layout.ep for layout in found} > {1, 8}


def test_ranks_of_fsdp_share_out_every_parameter_of_a_hybrid() -> None:
    layouts = [Layout(dp=ranks, zero=3, sharding="fsdp2") for ranks in (2, 8)]
    group = prepared(NANO, training()).group(layouts)
    assert isinstance(group, TrainingGroup)
    two, eight = (int(size) for size in group.resident.weights)

    assert two == pytest.approx(4 * eight, rel=0.001)
    assert two == pytest.approx(31_577_937_344, rel=0.001)


def test_a_lora_on_out_proj_is_refused_where_peft_refuses_it() -> None:
    adapter = Adapter("lora", 8, frozenset({"in-proj", "mixer-out"}))

    assert "such as in_proj and x_proj" in refusal(MAMBA, training(adapter=adapter))
    assert refusal("nvidia/Nemotron-H-56B-Base-8K", training(adapter=adapter)).endswith(
        "such as in_proj"
    )
    assert "PEFT refuses lora on out_proj of mamba" in refusal(MAMBA, training(adapter=adapter))
    assert prepared(JAMBA, training(adapter=adapter)).trainable_parameter_count > 0


@pytest.mark.parametrize("method", ["loha", "lokr", "boft", "oft", "dora", "vera", "ia3"])
@pytest.mark.parametrize("model", [MAMBA, JAMBA, "nvidia/Nemotron-H-56B-Base-8K"])
def test_any_adapter_is_put_on_a_layer_that_is_called_as_one(model: str, method: Any) -> None:
    adapter = Adapter(method, 8, frozenset({"in-proj"}))

    assert prepared(model, training(adapter=adapter)).trainable_parameter_count > 0


def test_adapters_other_than_lora_are_refused_on_layers_read_by_their_weights() -> None:
    adapter = Adapter("vera", 8, frozenset({"in-proj", "x-proj", "dt-proj"}))

    assert "the weights of dt_proj, x_proj themselves" in refusal(JAMBA, training(adapter=adapter))


def test_a_lora_trains_the_layers_it_is_put_on() -> None:
    """2 x 8 numbers a channel between them: 768 + 3072 for in_proj, 1536 + 80 for x_proj."""
    adapter = Adapter("lora", 8, frozenset({"in-proj", "x-proj"}))
    made = prepared("state-spaces/mamba-130m-hf", training(adapter=adapter))

    assert made.trainable_parameter_count == 24 * 8 * (768 + 3072 + 1536 + 80)


def test_compiled_loops_are_not_described_and_say_so() -> None:
    words = refusal(MAMBA, training(Kernels(compile="model")))

    assert "training.kernels.recurrence" in words
    assert "associative scan" in words
    assert prepared(MAMBA, training(Kernels(compile="model", recurrence="fused")))


def test_another_scan_than_the_two_is_refused() -> None:
    assert "use_mambapy True is not built" in refusal(MAMBA, training(), use_mambapy=True)


def prefill(name: str, recurrence: Literal["eager", "fused"] | None) -> PreparedWorkload:
    run = Inference(
        "transformers", "bf16", "bf16", 1, 2048, 16, "dynamic", 1, recurrence=recurrence
    )
    made = prepare_any(Workload(ModelSource(find_preset(name).config), run))
    assert isinstance(made, PreparedWorkload)
    return made


@pytest.mark.parametrize("name", [MAMBA, NANO, JAMBA])
def test_a_prefill_that_does_not_say_how_it_scans_is_unsure_over_both_ways(name: str) -> None:
    unsure, fused, eager = (
        gpu_columns(prefill(name, way).group([Layout()])) for way in (None, "fused", "eager")
    )

    assert int(unsure.allocated_best[0]) == int(fused.allocated_best[0])
    assert int(unsure.allocated_high[0]) >= int(eager.allocated_best[0])


def test_what_a_scan_keeps_for_the_next_token_does_not_grow_with_the_text() -> None:
    """Of 48 layers, 2,048 channels each: inputs under 4 taps in bf16 and 16 states in fp32."""
    group = prefill(MAMBA, "fused").group([Layout()])
    assert isinstance(group, InferenceGroup)

    assert int(group.cache(100)[0]) == int(group.cache(2000)[0])
    assert int(group.cache(100)[0]) == 48 * 2048 * (4 * 2 + 16 * 4)
