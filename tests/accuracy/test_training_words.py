"""Words of published training runs that no shown case has, as they have to be taken."""

from __future__ import annotations

from typing import Any

import pytest
from tests.accuracy.case import Unmapped
from tests.accuracy.training_cases import map_training

from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.workload import Training


def case(**changes: Any) -> dict[str, Any]:
    workload = {
        "model": "meta-llama/Llama-2-7b-hf",
        "task": "full-finetune",
        "framework": "transformers",
        "precision": "bf16",
        "optimizer": "AdamW",
        "micro_batch": 1,
        "seq_len": 1024,
        "gpus": 1,
        "gpu": "A100-80GB",
    }
    return {"id": "x", "kind": "training", "workload": workload | changes, "targets": []}


def training(**changes: Any) -> Training:
    run = map_training(case(**changes)).workload.run
    assert isinstance(run, Training)
    return run


@pytest.mark.parametrize(
    ("task", "framework", "method", "reference"),
    [
        ("dpo", "colossalai (ColossalChat)", "dpo", "model"),
        ("full-finetune dpo", "trl", "dpo", "model"),
        ("lora dpo", "trl", "dpo", "adapter-off"),
        ("kto", "trl", "kto", "model"),
        ("orpo", "colossalai", "orpo", "none"),
        ("simpo", "colossalai", "simpo", "none"),
    ],
)
def test_preference_tuning_is_read_from_the_task(
    task: str, framework: str, method: str, reference: str
) -> None:
    found = training(task=task, framework=framework).preference

    assert found is not None
    assert (found.method, found.reference) == (method, reference)


@pytest.mark.parametrize("task", ["ppo", "grpo"])
def test_reinforcement_learning_is_refused_by_name(task: str) -> None:
    with pytest.raises(Unmapped, match=f"{task}.*reinforcement learning"):
        map_training(case(task=task, framework="colossalai"))


def test_a_run_without_preferences_has_none() -> None:
    assert training().preference is None
    assert training(task="qlora", precision="4bit-nf4").preference is None


def test_torchaos_host_optimizer_can_be_estimated() -> None:
    stated = {"offload": "cpu-optimizer"}
    settings = {"offload_gradients": True}
    run = training(framework="pytorch", parallelism=stated, settings=settings)

    assert run.layout is not None
    assert (run.layout.sharding, run.layout.offload) == ("ddp", "optimizer")
    assert run.optimizer.in_backward
    prepare(map_training(case(framework="pytorch", parallelism=stated)).workload)


@pytest.mark.parametrize(
    ("settings", "precision", "loss"),
    [
        ({}, "bf16-mixed", None),
        ({"fp8_recompute_weight_in_backward": True}, "fp8", "compiled"),
        ({}, "mxfp8", "compiled"),
    ],
)
def test_torchtitans_compiled_loss_is_told_by_what_only_later_versions_have(
    settings: dict[str, Any], precision: str, loss: str | None
) -> None:
    run = training(
        task="pretrain",
        framework="torchtitan",
        precision=precision,
        compile=True,
        settings=settings,
    )
    assert run.kernels.loss == loss


@pytest.mark.parametrize(
    ("task", "method"), [("adapter", "adaption-prompt"), ("adapter_v2", "adapter-v2")]
)
def test_litgpts_adapters_are_read_from_the_task(task: str, method: str) -> None:
    adapter = training(task=task, framework="litgpt").adapter

    assert adapter is not None
    assert (adapter.method, adapter.virtual_tokens) == (method, 10)


def test_every_adapter_method_of_peft_that_is_near_one_is_taken_as_it() -> None:
    for name, method in {
        "hira": "lokr",
        "pvera": "vera",
        "glora": "lora",
        "beft": "lora-fa",
    }.items():
        adapter = training(task=f"peft-{name}", peft_method=name, framework="pytorch").adapter
        assert adapter is not None
        assert adapter.method == method


def test_bitsandbytes_quantises_experts_that_are_linear_layers_of_their_own() -> None:
    for model, framework, experts in (
        ("mistralai/Mixtral-8x7B-v0.1", "transformers", True),
        ("openai/gpt-oss-20b", "transformers", False),
        ("openai/gpt-oss-20b", "unsloth", True),
    ):
        run = training(model=model, framework=framework, task="qlora", precision="4bit-nf4")
        assert run.base_weights is not None
        assert run.base_weights.quantized_experts == experts


def test_what_is_sharded_is_not_upcast() -> None:
    alone = training(task="qlora", framework="trl", precision="4bit-nf4").base_weights
    sharded = training(
        task="qlora",
        framework="trl",
        precision="4bit-nf4",
        gpus=2,
        parallelism={"fsdp": "full_shard", "dp": 2},
    ).base_weights

    assert alone is not None
    assert sharded is not None
    assert (alone.upcast_others, sharded.upcast_others) == (True, False)


@pytest.mark.parametrize(
    ("stated", "precision", "expected"),
    [(None, "4bit-nf4", "full"), (None, "bf16", "none"), ("none", "4bit-nf4", "none")],
)
def test_peft_checkpoints_quantised_models_unless_told(
    stated: str | None, precision: str, expected: str
) -> None:
    run = training(
        task="lora", framework="trl", precision=precision, activation_checkpointing=stated
    )
    assert run.checkpointing == expected


@pytest.mark.parametrize("task", ["dpo qlora", "orpo+lora", "qlora nf4 r8", "peft-lora"])
def test_a_method_is_found_among_the_words_of_a_task(task: str) -> None:
    adapter = training(task=task, framework="trl").adapter

    assert adapter is not None
    assert adapter.method == "lora"


def test_a_megatron_run_that_names_a_model_alone_takes_its_sizes() -> None:
    stated = {"dp": 8, "zero_stage": 1, "ep": 8}
    run = case(
        model="Qwen/Qwen3-30B-A3B",
        framework="ms-swift/megatron",
        optimizer="Adam",
        gpus=8,
        parallelism=stated,
        arch=None,
    )
    assert prepare(map_training(run).workload).parameter_count == 30_532_122_624
