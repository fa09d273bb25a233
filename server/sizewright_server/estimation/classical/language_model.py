"""Hugging Face models that train or infer on the CPU: the GPU's tensors, with CPU kernels."""

from __future__ import annotations

from typing import Any, Literal

from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.estimate import host_estimate
from sizewright_server.estimation.classical.network import (
    first_step,
    heap_part,
    optimizer_states,
    parameters_part,
    torch_process,
)
from sizewright_server.estimation.classical.network_stages import F4
from sizewright_server.estimation.classical.parts import Moment, part
from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.memory import MemoryEstimate, Part
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.workload import (
    Inference,
    Layout,
    ModelSource,
    Optimizer,
    Training,
    Workload,
)

SOURCE = "the tensors of the same pass on a GPU (estimation.training), eager attention"
_OPTIMIZERS: dict[str, Literal["sgd", "sgd-momentum", "adam", "adamw"]] = {
    "sgd": "sgd",
    "momentum": "sgd-momentum",
    "adam": "adam",
    "adamw": "adamw",
}


def estimate_language_model(
    config: dict[str, Any], batch: int, tokens: int, *, optimizer: str | None, foreach: bool = False
) -> MemoryEstimate:
    """Peak of a PyTorch process that trains a model in float32, or infers with `optimizer` None.

    Attention with dropout runs as matrix products on the CPU, like eager attention. Raises
    UnsupportedWorkload.
    """
    states = 0 if optimizer is None else optimizer_states(optimizer)
    run = _run(batch, tokens, optimizer, foreach=foreach)
    prepared = prepare(Workload(ModelSource(config), run))
    pool = prepared.estimate(Layout(), 1, device_overhead(None, None)).pool("gpu")
    count = prepared.parameter_count
    fixed = count * F4 * (1 + states)
    held = (
        *torch_process(),
        constant("process", "transformers").part("transformers", "its import"),
        constant("process", "transformers_model").part("model-class", "its import, initialisation"),
        parameters_part(count, 1, "parameters", SOURCE),
    )
    kept = (parameters_part(count, states, "optimizer-state", SOURCE),) if states else ()
    noise = () if optimizer is None else _float_noise(config, batch, tokens)
    moments = [Moment("load", held)]
    for phase in pool.phases:
        live = max(0, _tensors(phase.parts) - fixed)
        dynamic = part("tensors", live, "live tensors of the pass", f"{live:,} B", SOURCE)
        started = (*held, *first_step(training=optimizer is not None), *kept)
        masks = noise if phase.name in ("forward", "loss") else ()
        moments.append(Moment(phase.name, (*started, dynamic, *masks, heap_part(live))))
    return host_estimate(tuple(moments), prepared.architecture, "process")


def _run(batch: int, tokens: int, optimizer: str | None, *, foreach: bool) -> Training | Inference:
    if optimizer is None:
        return Inference(
            "transformers", "fp32", "fp32", batch, tokens, 0, "none", 0, "eager", layout=Layout()
        )
    name = _OPTIMIZERS[optimizer]
    step = Optimizer(name, "foreach" if foreach else "for-loop")
    return Training("fp32", step, batch, tokens, attention="eager", layout=Layout())


def _tensors(parts: tuple[Part, ...]) -> int:
    """Bytes in tensors of a GPU phase: without the device's own overhead and the allocator's."""
    outside = ("device-context", "library-workspaces", "collective-buffers", "allocator-slack")
    return sum(p.size.best_bytes for p in parts if p.name not in outside)


def _float_noise(config: dict[str, Any], batch: int, tokens: int) -> tuple[Part, ...]:
    """Dropout on the CPU keeps its noise as float32 where CUDA keeps a bool: 3 B more."""
    hidden = float(config.get("hidden_dropout_prob", config.get("resid_pdrop", 0.0)) or 0)
    scores = float(config.get("attention_probs_dropout_prob", config.get("attn_pdrop", 0.0)) or 0)
    layers = int(config.get("num_hidden_layers", config.get("n_layer", 0)))
    width = int(config.get("hidden_size", config.get("n_embd", 0)))
    heads = int(config.get("num_attention_heads", config.get("n_head", 0)))
    elements = layers * batch * tokens * (2 * width * (hidden > 0) + heads * tokens * (scores > 0))
    text = "3 B more an element of dropped tensors: residuals twice, scores once a layer"
    source = "aten/native/Dropout.cpp: the composite kernel keeps float noise"
    return (part("dropout-noise", 3 * elements, text, f"{elements:,} x 3 B", source),)
