"""What a run must satisfy once its model is known; layouts have their own checks."""

from __future__ import annotations

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.megatron_checks import further_layers
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.sparse_checks import sparse_kernel
from sizewright_server.estimation.workload import Inference, Training

#: Families whose linear layers are transformers' Conv1D, and methods that know no such layers.
CONVOLVED = ("gpt2",)
LINEAR_ALONE = ("loha", "lokr", "boft", "oft")
#: Linear layers of a sparse attention's indexer, which never train.
INDEXER = {"wq_b", "wk", "weights_proj"}
#: No machine holds this; beyond it, products of sizes would no longer fit 64 bits.
LARGEST_BYTES = 2**60


def check_size(architecture: Architecture, run: Training | Inference) -> None:
    """Raises UnsupportedWorkload for what would overflow 64-bit arithmetic: far beyond any
    machine."""
    sizes = architecture.sizes
    training = isinstance(run, Training)
    batch = run.micro_batch if isinstance(run, Training) else run.batch
    tokens = run.seq_len if isinstance(run, Training) else run.input_tokens + run.new_tokens
    widest = max(sizes.vocab, sizes.ffn, sizes.hidden)
    if run.attention == "eager":
        widest = max(widest, sizes.heads * tokens)
    # Some tens of tensors of the widest kind in every layer bound what a pass holds.
    bound = batch * tokens * widest * max(sizes.layers, 1) * 64
    weights = sizes.layers * sizes.hidden * (sizes.ffn + 4 * sizes.hidden) * 64
    if bound + weights < LARGEST_BYTES:
        return
    field = "workload.training.micro_batch" if training else "workload.inference.batch"
    raise UnsupportedWorkload(
        Violation(
            field,
            f"{batch:,} x {tokens:,} tokens need more than {LARGEST_BYTES:,} bytes; "
            "lower the batch or the sequence length",
        )
    )


def check_modalities(architecture: Architecture, run: Training | Inference) -> None:
    """Raises UnsupportedWorkload for what a model of which text alone is lowered does not have."""
    if not architecture.tower:
        return
    problems = []
    if run.image_size:
        text = "is estimated for text alone, its vision tower at rest; leave image_size out"
        field = f"workload.{'training' if isinstance(run, Training) else 'inference'}.image_size"
        problems.append(Violation(field, f"{architecture.model_type} {text}"))
    if run.layout is not None and run.layout.sharding == "megatron":
        text = "Megatron-LM trains a language model alone: give the text_config"
        problems.append(Violation("workload.training.parallelism.explicit.implementation", text))
    if problems:
        raise UnsupportedWorkload(*problems)


def check_run(architecture: Architecture, run: Training | Inference) -> None:
    """Raises UnsupportedWorkload with every setting that the model's code does not run with."""
    kind = "training" if isinstance(run, Training) else "inference"
    wrong = list(sparse_kernel(architecture, run))
    if isinstance(run, Training):
        wrong += further_layers(architecture, run.layout, run)
    if wrong:
        raise UnsupportedWorkload(*(Violation(f"workload.{kind}.{n}", text) for n, text in wrong))


def check_adapter(architecture: Architecture, run: Training | Inference) -> None:
    """Raises UnsupportedWorkload for a method that PEFT has not for a model's kind of layers."""
    adapter = run.adapter if isinstance(run, Training) else None
    if adapter is None:
        return
    text = ""
    if architecture.model_type in CONVOLVED and adapter.method in LINEAR_ALONE:
        text = (
            f"the Conv1D layers of {architecture.model_type}; use lora, dora, adalora, vera or ia3"
        )
    joined = architecture.style.adapts_experts and adapter.targets & {"gate", "up", "down"}
    if joined and adapter.method == "dora":
        text = (
            f"the fused weights of {architecture.model_type}'s experts, for which it takes gate, up"
            " and down; use lora or rslora, or name attention's layers"
        )
    if text:
        text = f"PEFT has no {adapter.method} for {text}"
        raise UnsupportedWorkload(Violation("workload.training.adapter.method", text))


def check_trains(architecture: Architecture, run: Training | Inference, trained: int) -> None:
    """Raises UnsupportedWorkload for an adapter that finds nothing in the model to train."""
    if not isinstance(run, Training) or run.adapter is None or trained:
        return
    names = ", ".join(sorted(run.adapter.targets))
    text = f"the model has no linear layers of the kinds {names}; 'all-linear' finds those it has"
    if architecture.chooses_keys and run.adapter.targets & INDEXER:
        text = (
            f"the indexer of {architecture.model_type} runs without gradients, so that an adapter "
            "on it never trains; name layers beside it, such as q_b_proj and o_proj"
        )
    raise UnsupportedWorkload(Violation("workload.training.adapter.targets", text))
