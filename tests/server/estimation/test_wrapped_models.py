"""Vision-language checkpoints that train on text alone: what is there, at rest, and refused."""

from __future__ import annotations

from typing import Any

import pytest

from sizewright_server.estimation.adapter_targets import adapter_targets
from sizewright_server.estimation.estimator import PreparedWorkload, prepare
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.techniques import Adapter, BaseWeights
from sizewright_server.estimation.workload import (
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

GEMMA = find_preset("google/gemma-3-4b-it").config
#: SigLIP and the projector, counted with transformers on the meta device.
TOWER = 419_816_304


ONE_GPU = Layout()


def training(config: dict[str, Any] = GEMMA, layout: Layout = ONE_GPU, **more: Any) -> Workload:
    run = Training("bf16", Optimizer("adamw"), 1, 512, layout=layout, **more)
    return Workload(ModelSource(config), run)


def weights(prepared: PreparedWorkload, layout: Layout = ONE_GPU) -> int:
    group: Any = prepared.group([layout])
    return int(group.resident.weights[0])


def gathered(prepared: PreparedWorkload, layout: Layout) -> int:
    group: Any = prepared.group([layout])
    return int(group.states.gathered_total()[0])


def refusal(workload: Workload) -> str:
    with pytest.raises(UnsupportedWorkload) as caught:
        prepare(workload)
    return str(caught.value)


def test_the_tower_is_counted_and_does_not_train() -> None:
    whole, text = prepare(training()), prepare(training({**GEMMA["text_config"]}))

    assert whole.parameter_count - text.parameter_count == TOWER
    assert whole.trainable_parameter_count == text.trainable_parameter_count
    assert weights(whole) - weights(text) == pytest.approx(2 * TOWER, rel=1e-4)


def test_fsdp_shards_the_tower_and_gathers_none_of_it() -> None:
    layout = Layout(dp=8, zero=3, sharding="fsdp2")
    whole = prepare(training(layout=layout))
    text = prepare(training({**GEMMA["text_config"]}, layout=layout))

    assert weights(whole, layout) - weights(text, layout) == pytest.approx(TOWER / 4, rel=1e-3)
    assert gathered(whole, layout) == gathered(text, layout)


def test_four_bit_weights_are_the_towers_too() -> None:
    adapter = Adapter("lora", 8, adapter_targets(("q_proj",), "lora"))
    made = [
        weights(prepare(training(c, adapter=adapter, base_weights=BaseWeights("nf4"))))
        for c in (GEMMA, {**GEMMA["text_config"]})
    ]

    assert made[0] - made[1] < 0.7 * TOWER


def test_libraries_that_make_states_for_what_is_not_frozen_have_a_higher_bound() -> None:
    def above(config: dict[str, Any], sharding: Any) -> int:
        layout = Layout(dp=2, zero=1 if sharding == "deepspeed" else 0, sharding=sharding)
        made = prepare(training(config, layout)).estimate(layout, 2, device_overhead(None, None))
        gpu = made.pool("gpu").gpu
        assert gpu is not None
        return gpu.allocated.high_bytes - gpu.allocated.best_bytes

    text = {**GEMMA["text_config"]}
    assert above(GEMMA, "deepspeed") - above(text, "deepspeed") >= 6 * TOWER
    assert above(GEMMA, "ddp") - above(text, "ddp") >= 2 * TOWER


def test_the_answer_says_that_the_tower_is_at_rest() -> None:
    estimate = prepare(training()).estimate(Layout(), 1, device_overhead(None, None))

    assert "vision-tower-at-rest" in [notice.code for notice in estimate.notices]


def test_images_and_megatron_are_refused_with_what_to_give() -> None:
    assert "text alone" in refusal(training(image_size=896))
    assert "give the text_config" in refusal(training(layout=Layout(tp=2, sharding="megatron")))


def test_a_tower_without_its_sizes_is_refused() -> None:
    config = {**GEMMA, "vision_config": {"hidden_size": "wide"}}

    assert "vision_config: hidden_size must be a whole number" in refusal(training(config))


def test_an_older_file_has_the_language_model_among_the_outer_keys() -> None:
    preset = find_preset("Qwen/Qwen2.5-VL-7B-Instruct")

    assert "text_config" not in preset.config
    assert prepare(training(preset.config)).parameter_count == preset.parameters
