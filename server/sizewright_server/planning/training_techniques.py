"""What each technique makes of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sizewright_server.estimation.adapter_targets import adapter_targets
from sizewright_server.estimation.classical.cpu_network import CpuWorkload
from sizewright_server.estimation.keras.workload import KerasWorkload
from sizewright_server.estimation.modeling import training_loop
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.techniques import Adapter, BaseWeights, TrainingLoop
from sizewright_server.estimation.workload import Training, Workload
from sizewright_server.planning.changes import Change, Form, Rule, with_run

#: Rank of the adapters that are proposed: between PEFT's default of 8 and the common 64.
LORA_RANK = 16
#: Adapters that PEFT trains over weights of 4 bits.
LOW_RANK = ("lora", "rslora", "dora")
#: Optimizers that have a form with 8-bit states.
EIGHT_BIT = {
    "adamw": "adamw-8bit",
    "adam": "adam-8bit",
    "lion": "lion-8bit",
    "sgd-momentum": "sgd-8bit",
    "rmsprop": "rmsprop-8bit",
    "adagrad": "adagrad-8bit",
    "paged-adamw": "paged-adamw-8bit",
}


def _training(workload: AnyWorkload) -> Training | None:
    if isinstance(workload, Workload) and isinstance(workload.run, Training):
        return workload.run
    return None


def _fused_step(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and run.optimizer.step == "foreach":
        optimizer = replace(run.optimizer, step="fused")
        yield with_run(workload, "optimizer.step", "foreach", "fused", optimizer=optimizer)


def _attention(workload: AnyWorkload) -> Iterator[Form]:
    if isinstance(workload, Workload) and workload.run.attention == "eager":
        yield with_run(workload, "attention", "eager", "sdpa", attention="sdpa")


def _accumulation(workload: AnyWorkload) -> Iterator[Form]:
    """Smaller micro-batches, the global batch kept: every divisor, largest first."""
    run = workload.run if isinstance(workload, Workload | CpuWorkload) else None
    if not isinstance(run, Training):
        return
    for size in range(run.micro_batch // 2, 0, -1):
        if run.micro_batch % size:
            continue
        steps = run.gradient_accumulation_steps * (run.micro_batch // size)
        made, changes = with_run(
            workload,
            "micro_batch",
            run.micro_batch,
            size,
            micro_batch=size,
            gradient_accumulation_steps=steps,
        )
        more = Change(
            "workload.training.gradient_accumulation_steps",
            str(run.gradient_accumulation_steps),
            str(steps),
        )
        yield made, (*changes, more)


def _checkpointing(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and run.checkpointing != "full":
        before = run.checkpointing
        yield with_run(workload, "activation_checkpointing", before, "full", checkpointing="full")


def _loss_kernel(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and run.kernels.loss is None and run.preference is None:
        kernels = replace(run.kernels, loss="fused-linear")
        yield with_run(workload, "kernels.loss", "full", "fused-linear", kernels=kernels)


def _expandable(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and not run.expandable_segments:
        yield with_run(workload, "expandable_segments", "false", "true", expandable_segments=True)


def _release(workload: AnyWorkload) -> Iterator[Form]:
    """References to a step's output dropped before the next: the loss alone is kept."""
    run = _training(workload)
    if run is None:
        return
    before = training_loop(run)
    after: TrainingLoop = "trainer" if run.modeling_code == "transformers" else "plain"
    if before not in ("trainer", after):
        yield with_run(workload, "training_loop", before, after, loop=after)


def _selective(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and run.checkpointing == "none":
        yield with_run(
            workload, "activation_checkpointing", "none", "selective", checkpointing="selective"
        )


def _eight_bit(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    after = EIGHT_BIT.get(run.optimizer.name) if run is not None else None
    if run is not None and after is not None:
        optimizer = replace(run.optimizer, name=after)
        yield with_run(workload, "optimizer.name", run.optimizer.name, after, optimizer=optimizer)


def _step_in_backward(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is None or run.optimizer.in_backward or run.gradient_accumulation_steps > 1:
        return
    if run.offload != "none":
        return
    optimizer = replace(run.optimizer, in_backward=True)
    yield with_run(workload, "optimizer.in_backward", "false", "true", optimizer=optimizer)


def _lora(workload: AnyWorkload) -> Iterator[Form]:
    yield from _adapted(workload, None)


def _qlora(workload: AnyWorkload) -> Iterator[Form]:
    """An adapter over weights of 4 bits; one that is there already keeps its own settings."""
    base = BaseWeights("nf4", double_quantization=True)
    run = _training(workload)
    if run is None or run.adapter is None:
        yield from _adapted(workload, base)
        return
    if run.adapter.method in LOW_RANK and run.base_weights is None:
        made, changes = with_run(
            workload, "base_weights.format", "none", base.format, base_weights=base
        )
        double = Change("workload.training.base_weights.double_quantization", "false", "true")
        yield made, (*changes, double)


def _adapted(workload: AnyWorkload, base: BaseWeights | None) -> Iterator[Form]:
    """Adapters on every linear layer in place of training all weights."""
    run = _training(workload)
    if run is None or run.adapter is not None:
        return
    targets = adapter_targets(["all-linear"], "lora")
    adapter = Adapter("lora", rank=LORA_RANK, targets=targets)
    made, changes = with_run(
        workload, "adapter.method", "none", "lora", adapter=adapter, base_weights=base
    )
    more = [
        Change("workload.training.adapter.rank", "0", str(LORA_RANK)),
        Change("workload.training.adapter.targets", "none", "all-linear"),
    ]
    if base is not None:
        more.append(Change("workload.training.base_weights.format", "none", base.format))
        double = "workload.training.base_weights.double_quantization"
        more.append(Change(double, "false", "true"))
    yield made, (*changes, *more)


def _mixed_precision(workload: AnyWorkload) -> Iterator[Form]:
    if isinstance(workload, KerasWorkload) and workload.training and workload.on_gpu:
        change = Change("workload.training.precision", "fp32", "bf16-mixed")
        if not workload.mixed:
            yield replace(workload, mixed=True), (change,)
        return
    run = _training(workload)
    if run is not None and run.precision == "fp32":
        yield with_run(workload, "precision", "fp32", "bf16-mixed", precision="bf16-mixed")


def _pure_bf16(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and run.precision in ("fp32", "bf16-mixed"):
        yield with_run(workload, "precision", run.precision, "bf16", precision="bf16")


def _smaller_batch(workload: AnyWorkload) -> Iterator[Form]:
    """Half the batch of a Keras model, whose optimizer is not told to accumulate."""
    if isinstance(workload, KerasWorkload) and workload.training and workload.batch > 1:
        before = workload.batch
        change = Change("workload.training.micro_batch", str(before), str(before // 2))
        yield replace(workload, batch=before // 2), (change,)


def _shorter(workload: AnyWorkload) -> Iterator[Form]:
    run = _training(workload)
    if run is not None and run.seq_len >= 512:
        half = run.seq_len // 2
        yield with_run(workload, "seq_len", run.seq_len, half, seq_len=half)


TRAINING: dict[str, Rule] = {
    "fused-optimizer-step": _fused_step,
    "memory-efficient-attention": _attention,
    "gradient-accumulation": _accumulation,
    "expandable-segments": _expandable,
    "fused-linear-loss": _loss_kernel,
    "release-the-output": _release,
    "selective-checkpointing": _selective,
    "activation-checkpointing": _checkpointing,
    "step-in-backward": _step_in_backward,
    "mixed-precision": _mixed_precision,
    "8-bit-optimizer": _eight_bit,
    "pure-bf16": _pure_bf16,
    "smaller-training-batch": _smaller_batch,
    "lora": _lora,
    "qlora": _qlora,
    "shorter-sequences": _shorter,
}
