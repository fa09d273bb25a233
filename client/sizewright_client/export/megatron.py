"""A Megatron-LM command with the plan's layout."""

from __future__ import annotations

import shlex

from sizewright.v1 import estimate_pb2
from sizewright_client.export.launchers import rendezvous
from sizewright_client.export.ledger import Ledger
from sizewright_client.export.selection import ExportError, Selection
from sizewright_client.export.trainer import check_training

PRECISIONS = {"bf16": ["--bf16"], "bf16-mixed": ["--bf16"], "fp16-mixed": ["--fp16"], "fp32": []}
OPTIMIZERS = {"adamw": "adam", "adam": "adam", "sgd-momentum": "sgd"}
RECOMPUTED: dict[str, list[str]] = {
    "": [],
    "none": [],
    "full": [
        "--recompute-granularity=full",
        "--recompute-method=uniform",
        "--recompute-num-layers=1",
    ],
    "selective": ["--recompute-granularity=selective"],
}
#: Numbers of Megatron-LM's own, by their fields.
NUMBERS = {
    "vocab_multiple": "make-vocab-size-divisible-by",
    "decoder_first_pipeline_num_layers": "decoder-first-pipeline-num-layers",
    "decoder_last_pipeline_num_layers": "decoder-last-pipeline-num-layers",
}
CONTEXT = {"": "p2p", "ring": "p2p", "all-gather": "allgather", "ulysses": "a2a"}


def megatron(selection: Selection) -> str:
    """`torchrun pretrain_gpt.py` with the sizes and settings; the model and data are yours."""
    check_training(selection)
    layout = selection.plan.layout
    if layout.implementation != "megatron":
        raise ExportError(
            f"the plan shards with {layout.implementation or 'ddp'}, not with Megatron-LM; state "
            "the layout with implementation: megatron"
        )
    run = Ledger("training", selection.workload.training)
    run.describes("training_loop", "modeling_code", "variable_lengths", "seq_len_is_limit")
    words = [*_sizes(layout, run), *_step(selection, run), *_settings(run)]
    run.describes("parallelism")
    left = run.left()
    if left:
        raise ExportError(f"Megatron-LM's arguments say nothing of {'; '.join(left)}")
    start = " ".join([*rendezvous(selection), "pretrain_gpt.py"])
    note = f"# MODEL_ARGS: architecture of {selection.model_name}; DATA_ARGS: tokenizer and data"
    quoted = [*map(shlex.quote, words), "$MODEL_ARGS $DATA_ARGS"]
    return "\n".join([note, " \\\n  ".join([start, *quoted]), ""])


def _sizes(layout: estimate_pb2.Layout, run: Ledger) -> list[str]:
    words = [
        f"--tensor-model-parallel-size={layout.tp}",
        f"--pipeline-model-parallel-size={layout.pp}",
    ]
    if layout.virtual_pipeline_stages > 1:
        words.append(f"--num-virtual-stages-per-pipeline-rank={layout.virtual_pipeline_stages}")
    if layout.cp > 1:
        method = run.peek("parallelism.explicit.context_parallel_method")
        words += [f"--context-parallel-size={layout.cp}", f"--cp-comm-type={CONTEXT[method]}"]
    if layout.ep > 1:
        words.append(f"--expert-model-parallel-size={layout.ep}")
    if layout.sequence_parallel:
        words.append("--sequence-parallel")
    if layout.zero:
        words.append("--use-distributed-optimizer")
    schedule = run.peek("parallelism.explicit.pipeline_schedule")
    if schedule not in ("", "one-f-one-b"):
        raise ExportError(f"Megatron-LM's arguments say nothing of pipeline_schedule: {schedule}")
    return words


def _step(selection: Selection, run: Ledger) -> list[str]:
    micro, steps = run.take("micro_batch"), max(run.take("gradient_accumulation_steps"), 1)
    return [
        f"--micro-batch-size={micro}",
        f"--global-batch-size={micro * steps * selection.plan.layout.dp}",
        f"--seq-length={run.take('seq_len')}",
    ]


def _settings(run: Ledger) -> list[str]:
    precision, optimizer = run.take("precision"), run.take("optimizer.name")
    for field, value, known in (
        ("precision", precision, PRECISIONS),
        ("optimizer.name", optimizer, OPTIMIZERS),
    ):
        if value not in known:
            raise ExportError(
                f"Megatron-LM's arguments say nothing of training.{field}: {value}; they have "
                f"{', '.join(known)}"
            )
    words = [*PRECISIONS[precision], f"--optimizer={OPTIMIZERS[optimizer]}"]
    words += RECOMPUTED[run.take("activation_checkpointing")]
    if run.take("attention") == "flash-attention-2":
        words.append("--attention-backend=flash")
    settings = "parallelism.explicit.megatron"
    local = run.peek(f"{settings}.transformer_impl") == "local"
    words.append(f"--transformer-impl={'local' if local else 'transformer_engine'}")
    if _on(run, f"{settings}.fp32_main_gradients"):
        words.append("--accumulate-allreduce-grads-in-fp32")
    if not _on(run, f"{settings}.gradient_accumulation_fusion"):
        words.append("--no-gradient-accumulation-fusion")
    if run.peek(f"{settings}.fused_cross_entropy"):
        words.append("--cross-entropy-loss-fusion")
    if run.peek(f"{settings}.overlap_moe_expert_parallel_comm"):
        words.append("--overlap-moe-expert-parallel-comm")
    for field, word in NUMBERS.items():
        number = run.peek(f"{settings}.{field}")
        if number:
            words.append(f"--{word}={number}")
    further = run.take("multi_token_prediction_layers")
    return [*words, *([f"--mtp-num-layers={further}"] if further else [])]


def _on(run: Ledger, path: str) -> bool:
    """A switch that is on unless it was turned off."""
    return not run.states(path) or bool(run.peek(path))
