"""A setting of a run shows in what starts it, or is refused by name: no run differs unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from sizewright.v1 import plan_pb2, workload_pb2
from sizewright_client.export.forms import Form, written
from sizewright_client.export.selection import ExportError, Selection

#: A legal value other than the default, of settings that are words or lists of them.
WORDS: dict[str, Any] = {
    "precision": "fp16-mixed",
    "optimizer.name": "adafactor",
    "attention": "flash-attention-2",
    "gradient_reduce_dtype": "bf16",
    "adapter.method": "dora",
    "adapter.targets": ["q_proj"],
    "adapter.dtype": "bf16",
    "adapter.trained_modules": ["head"],
    "kernels.loss": "fused-linear",
    "kernels.norm": "fused",
    "kernels.mlp": "fused",
    "kernels.rope": "fused",
    "kernels.compile": "model",
    "kernels.recurrence": "fused",
    "recurrence": "fused",
    "preference.method": "dpo",
    "preference.reference": "precomputed",
    "states.master_weights": "none",
    "states.gradients": "bf16",
    "states.optimizer_state": "bf16",
    "states.moving_average": "fp32",
    "base_weights.format": "nf4",
    "checkpoint_policy.selective": "attention",
    "weight_dtype": "fp8",
    "kv_dtype": "fp8",
    "serving.compute_dtype": "fp16",
    "serving.engine_generation": "v0",
    "serving.speculative.draft.preset": "meta-llama/Llama-3.2-1B",
}
#: They describe the data or the script, or what one of these files does not start.
DESCRIBES = {
    "padded_batches",
    "variable_lengths",
    "seq_len_is_limit",
    "training_loop",
    "modeling_code",
    "parallelism",
    # Beside nf4 alone, which TRL prepares so by itself.
    "base_weights.upcast_others",
    "optimizer.rank",
    # Of an adapter and a quantised base that is not there.
    "base_weights.double_quantization",
    "adapter.rank",
    "adapter.dropout",
    "checkpoint_policy.offload",
}
SERVING_DESCRIBES = {
    "engine",
    "batch",
    "parallelism",
    "padded_batches",
    "attention",
    "serving.engine_version",
    "serving.quantisation_group_size",
    "serving.adapters.rank",
    "serving.speculative.draft",
    "cache",
    "image_size",
}


def leaves(descriptor: Descriptor, prefix: str = "") -> Iterator[str]:
    """Paths of every setting of a message."""
    for field in descriptor.fields:
        path = prefix + field.name
        if field.message_type is None:
            yield path
        elif path not in ("parallelism", "serving.speculative.draft"):
            yield from leaves(field.message_type, path + ".")


def turned(message: Message, path: str) -> None:
    """Sets one setting to something that is not its default."""
    *parents, name = path.split(".")
    node = message
    for parent in parents:
        node = getattr(node, parent)
    field = node.DESCRIPTOR.fields_by_name[name]
    if path in WORDS and isinstance(WORDS[path], list):
        getattr(node, name).extend(WORDS[path])
        return
    kinds = {field.CPPTYPE_BOOL: True, field.CPPTYPE_DOUBLE: 0.5, field.CPPTYPE_ENUM: 2}
    value = WORDS.get(path, kinds.get(field.cpp_type, 64))
    setattr(node, name, value)


def trains() -> workload_pb2.Workload:
    """A plain training run."""
    work = workload_pb2.Workload(framework="pytorch")
    work.model.preset = "meta-llama/Meta-Llama-3-8B"
    work.training.precision = "bf16-mixed"
    work.training.optimizer.name = "adamw"
    work.training.micro_batch = 1
    work.training.seq_len = 2048
    return work


def serves(engine: str) -> workload_pb2.Workload:
    """A plain serving run."""
    work = workload_pb2.Workload(framework="pytorch")
    work.model.preset = "meta-llama/Meta-Llama-3-8B"
    run = work.inference
    run.engine, run.weight_dtype, run.batch = engine, "bf16", 8
    run.input_tokens, run.new_tokens = 1000, 100
    return work


def plan(implementation: str = "ddp") -> plan_pb2.Recommendation:
    """One GPU."""
    made = plan_pb2.Recommendation(node_count=1)
    made.layout.gpus = made.layout.dp = made.layout.tp = made.layout.pp = made.layout.cp = 1
    made.layout.ep, made.layout.implementation = 1, implementation
    return made


def output(work: workload_pb2.Workload, form: Form, implementation: str = "ddp") -> str:
    """What a form says, or why it refuses."""
    try:
        return written(Selection(plan(implementation), work), form)
    except ExportError as error:
        return f"refused: {error}"


def of_training() -> list[str]:
    return [
        path
        for path in leaves(workload_pb2.Training.DESCRIPTOR)
        if path not in DESCRIBES and not path.startswith("parallelism")
    ]


@pytest.mark.parametrize("form", [Form.TORCHRUN, Form.TRAINER, Form.ACCELERATE, Form.MEGATRON])
@pytest.mark.parametrize("path", of_training())
def test_a_setting_of_training_shows_or_is_refused(path: str, form: Form) -> None:
    implementation = "megatron" if form is Form.MEGATRON else "ddp"
    work = trains()
    before = output(work, form, implementation)

    turned(work.training, path)
    after = output(work, form, implementation)

    assert not before.startswith("refused")
    assert after != before
    if after.startswith("refused"):
        assert path in after or path.split(".")[0] in after


@pytest.mark.parametrize("engine", [Form.VLLM, Form.SGLANG])
@pytest.mark.parametrize(
    "path",
    [
        path
        for path in leaves(workload_pb2.Inference.DESCRIPTOR)
        if path not in SERVING_DESCRIBES and not path.startswith(("parallelism", "serving.spec"))
    ],
)
def test_a_setting_of_serving_shows_or_is_refused(path: str, engine: Form) -> None:
    work = serves(engine.value)
    before = output(work, engine)

    turned(work.inference, path)
    after = output(work, engine)

    assert not before.startswith("refused")
    by_itself = path in ("serving.shared_prefix_tokens", "serving.chunked_prefill")
    assert after != before or (by_itself and engine is Form.SGLANG)
    if after.startswith("refused"):
        assert path in after


@pytest.mark.parametrize("name", [f.name for f in workload_pb2.ZeroBuffers.DESCRIPTOR.fields])
def test_a_buffer_of_deepspeed_is_in_its_file(name: str) -> None:
    work = trains()
    work.training.parallelism.explicit.zero = 2
    before = output(work, Form.DEEPSPEED, "deepspeed")

    setattr(work.training.parallelism.explicit.zero_buffers, name, 1)
    after = output(work, Form.DEEPSPEED, "deepspeed")

    assert name in after
    assert after != before


@pytest.mark.parametrize("name", [f.name for f in workload_pb2.FsdpSettings.DESCRIPTOR.fields])
def test_a_setting_of_fsdp1_is_in_the_configuration_or_refused(name: str) -> None:
    work = trains()
    made = plan("fsdp1")
    made.layout.gpus = made.layout.dp = made.node_count = 8
    made.layout.zero = 3
    settings = work.training.parallelism.explicit.fsdp
    settings.wrap = "block"
    before = written(Selection(made, work), Form.ACCELERATE)

    turned_value: Any = "block-and-tables" if name == "wrap" else name not in ("backward_prefetch",)
    turned_value = False if name == "limit_all_gathers" else turned_value
    setattr(settings, name, turned_value)
    try:
        after = written(Selection(made, work), Form.ACCELERATE)
    except ExportError as error:
        after = str(error)
        assert f"fsdp.{name}" in after

    assert after != before
