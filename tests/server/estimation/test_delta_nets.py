"""Qwen3-Next and Qwen3.5 in training: parameters, what layouts share out, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest

from sizewright_server.estimation.adapter_targets import adapter_targets
from sizewright_server.estimation.estimator import PreparedWorkload, prepare
from sizewright_server.estimation.gpu_peaks import gpu_columns
from sizewright_server.estimation.inference import InferenceGroup
from sizewright_server.estimation.lowering import parameter_count
from sizewright_server.estimation.preparation import prepare_any
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import Adapter, Kernels
from sizewright_server.estimation.workload import (
    Inference,
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

NEXT = "Qwen/Qwen3-Next-80B-A3B-Instruct"
EAGER = Kernels(recurrence="eager")
RUN = Training("bf16", Optimizer("adamw"), 1, 4096, checkpointing="full", kernels=EAGER)
PREFILL = Inference("transformers", "bf16", "bf16", 2, 4096, 16, "dynamic", 1, layout=Layout())
#: Parameters of the text models' ForCausalLM classes, made on the meta device.
COUNTS = {
    NEXT: 79_674_391_296,
    "Qwen/Qwen3.5-9B": 8_953_803_264,
    "Qwen/Qwen3.5-27B": 26_895_998_464,
    "Qwen/Qwen3.5-35B-A3B": 34_660_610_688,
    "Qwen/Qwen3.5-122B-A10B": 122_111_526_912,
    "Qwen/Qwen3.5-397B-A17B": 396_346_350_336,
}


def text_config(name: str) -> dict[str, Any]:
    config = find_preset(name).config
    inner: dict[str, Any] = config.get("text_config", config)
    return inner


def prepared(name: str, run: Training = RUN, **changes: Any) -> PreparedWorkload:
    return prepare(Workload(ModelSource(text_config(name) | changes), run))


def refusal(name: str, layout: Layout) -> str:
    run = Training("bf16", Optimizer("adamw"), 1, 4096, layout=layout)
    with pytest.raises(UnsupportedWorkload) as caught:
        prepared(name, run)
    return str(caught.value)


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_parameters_are_those_counted_on_the_meta_device(name: str, count: int) -> None:
    """Without heads for tokens further ahead, which transformers leaves in the checkpoint."""
    assert prepared(name).parameter_count == count


def test_every_fourth_layer_attends_unless_layer_types_say_otherwise() -> None:
    kinds = [run.style.mixer for run in prepared(NEXT).model.runs if run.role == "block"]
    turned = ["full_attention", *47 * ["linear_attention"]]

    assert kinds == 12 * ["delta-net-joint", "attention"]
    own = prepared(NEXT, layer_types=turned).model
    assert [run.count for run in own.runs if run.role == "block"] == [1, 47]


def test_layer_types_that_are_not_known_are_named() -> None:
    with pytest.raises(UnsupportedWorkload, match="sliding_attention are not known"):
        prepared(NEXT, layer_types=48 * ["sliding_attention"])


def test_tensor_parallel_ranks_share_the_projections_and_keep_the_rest_whole() -> None:
    """`colwise_gather_output`: the plan of transformers' configuration classes."""
    projections = 12_288 * 2048 + 64 * 2048 + 2048 * 4096
    experts = 512 * 3 * 512 * 2048 + 3 * 512 * 2048

    assert layer_of(Layout()) - layer_of(Layout(tp=2)) == (projections + experts) // 2


def layer_of(layout: Layout) -> int:
    """Parameters that a rank has of a layer with a delta net."""
    group = prepared(NEXT).group([layout])
    segment = next(one for one in group.segments if one.name.startswith("delta"))
    return int(parameter_count(segment, group.dims_of.of(segment.sizes))[0])


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        (Layout(dp=4, cp=2, sharding="fsdp2", zero=3), "hand a state from token to token"),
        (Layout(dp=4, tp=2, sharding="megatron"), "recurrent layers are not described"),
    ],
)
def test_layouts_that_recurrent_layers_do_not_run_in_are_refused(
    layout: Layout, reason: str
) -> None:
    assert reason in refusal(NEXT, layout)


def test_packed_samples_need_the_kernels() -> None:
    run = Training("bf16", Optimizer("adamw"), 1, 4096, packed=True, kernels=EAGER)

    with pytest.raises(UnsupportedWorkload, match="set kernels"):
        prepared(NEXT, run)


def test_a_prefill_keeps_a_state_of_every_delta_net_however_long_the_prompt() -> None:
    """Of a layer 4 inputs x 8,192 channels in 16 bit, and 32 heads x 128 x 128 in fp32."""
    keys = 12 * 2 * 2 * 256 * 2
    short, long = (kept_of(tokens) for tokens in (512, 4096))

    assert long - short == (4096 - 512) * keys
    assert short - 512 * keys == 36 * (4 * 8192 * 2 + 32 * 128 * 128 * 4)


def kept_of(tokens: int) -> int:
    run = Inference("transformers", "bf16", "bf16", 1, tokens, 0, "dynamic", 1, recurrence="eager")
    group = prepare(Workload(ModelSource(text_config(NEXT)), run)).group([Layout()])
    assert isinstance(group, InferenceGroup)
    return int(group.cache(tokens)[0])


@pytest.mark.parametrize("recurrence", ["fused", "eager"])
def test_a_whole_checkpoint_infers_as_its_text_model_with_the_tower_beside_it(
    recurrence: Literal["fused", "eager"],
) -> None:
    def highest(config: dict[str, Any]) -> int:
        run = replace(PREFILL, recurrence=recurrence)
        made = prepare_any(Workload(ModelSource(config), run))
        gpu = made.estimate(Layout(), 1, device_overhead(None, None)).pool("gpu").gpu
        assert gpu is not None
        return gpu.allocated.best_bytes

    tower = 2 * (27_356_728_560 - COUNTS["Qwen/Qwen3.5-27B"])
    whole = find_preset("Qwen/Qwen3.5-27B").config
    text = text_config("Qwen/Qwen3.5-27B")

    assert highest(whole) - highest(text) == pytest.approx(tower, rel=1e-3)


def test_a_whole_checkpoint_has_no_images_in_inference_either() -> None:
    run = replace(PREFILL, image_size=448)
    workload = Workload(ModelSource(find_preset("Qwen/Qwen3.5-27B").config), run)

    with pytest.raises(UnsupportedWorkload, match="qwen3_5 is estimated for text alone"):
        prepare_any(workload)


def test_everything_wrong_with_a_run_is_named_at_once() -> None:
    layout = Layout(dp=4, cp=2, sharding="fsdp2", zero=3)
    run = Training("bf16", Optimizer("adamw"), 1, 4096, packed=True, kernels=EAGER, layout=layout)

    with pytest.raises(UnsupportedWorkload) as caught:
        prepared(NEXT, run)
    assert [one.field.removeprefix("workload.training.") for one in caught.value.violations] == [
        "parallelism.explicit.cp",
        "packed",
    ]


@pytest.mark.parametrize(
    ("name", "count"),
    [("Qwen/Qwen3.5-27B", 27_356_728_560), ("Qwen/Qwen3.5-397B-A17B", 396_802_360_816)],
)
def test_a_whole_checkpoint_has_its_tower_at_rest(name: str, count: int) -> None:
    made = prepare(Workload(ModelSource(find_preset(name).config), RUN))

    assert made.parameter_count == count
    assert made.trainable_parameter_count == COUNTS[name]


def peaks(kernels: Kernels) -> tuple[int, int, int]:
    run = Training("bf16", Optimizer("sgd"), 1, 4096, kernels=kernels)
    columns = gpu_columns(prepared("Qwen/Qwen3.5-9B", run).group([Layout()]))
    read = (columns.allocated_low, columns.allocated_best, columns.allocated_high)
    return tuple(int(column[0]) for column in read)  # type: ignore[return-value]


def test_torch_s_operators_keep_twice_what_the_kernels_keep() -> None:
    """529 and 285 kB of a token and layer; 24 of 32 layers have a delta net."""
    apart = peaks(EAGER)[1] - peaks(Kernels(recurrence="fused"))[1]

    assert apart == pytest.approx(24 * 4096 * 244.5 * 1024, rel=0.02)


def test_a_run_that_does_not_say_how_its_delta_nets_run_reaches_over_both() -> None:
    low, best, high = peaks(Kernels())

    assert best == peaks(Kernels(recurrence="fused"))[1]
    assert low <= peaks(Kernels(recurrence="fused"))[0]
    assert high >= peaks(EAGER)[1]


def test_the_projections_can_be_adapted_by_their_own_names() -> None:
    targets = adapter_targets(["in_proj_qkvz", "in_proj_ba"], "lora")
    run = Training("bf16", Optimizer("adamw"), 1, 512, adapter=Adapter("lora", 8, targets))

    assert prepared(NEXT, run).trainable_parameter_count == 36 * 8 * (2048 + 12_288 + 2048 + 64)


@pytest.mark.parametrize("method", ["loha", "lokr", "boft", "oft", "dora", "vera", "ia3"])
@pytest.mark.parametrize("name", [NEXT, "Qwen/Qwen3.5-9B", "zai-org/GLM-5"])
def test_any_adapter_is_put_on_the_linear_layers_of_a_block(name: str, method: Any) -> None:
    """Gated queries, joined projections, an indexer's, and the one number of a shared gate."""
    joined = ("in_proj_qkv", "in_proj_qkvz", "in_proj_ba")
    targets = (*joined, "q_proj", "o_proj", "q_b_proj", "wq_b", "shared_expert_gate")
    run = Training("bf16", Optimizer("adamw"), 1, 512, kernels=EAGER, layout=Layout())
    adapter = Adapter(method, 8, adapter_targets(targets, method))
    made = prepare(Workload(ModelSource(find_preset(name).config), replace(run, adapter=adapter)))

    gpu = made.estimate(Layout(), 1, device_overhead(None, None)).pool("gpu").gpu
    assert gpu is not None
    assert gpu.allocated.best_bytes > 0
