"""Hugging Face models that train or infer on the CPU: the GPU's tensors, with CPU kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.estimate import host_estimate
from sizewright_server.estimation.classical.network import (
    data_part,
    first_step,
    heap_part,
    torch_process,
)
from sizewright_server.estimation.classical.parts import EXACT, Moment, part
from sizewright_server.estimation.estimator import prepare
from sizewright_server.estimation.memory import MemoryEstimate, Part, Phase
from sizewright_server.estimation.runtime import device_overhead
from sizewright_server.estimation.workload import (
    Inference,
    Layout,
    ModelSource,
    Training,
    Workload,
)

SOURCE = "the tensors of the same pass on a GPU (estimation.training), eager attention"


def estimate_language_model(
    source: ModelSource,
    run: Training | Inference,
    *,
    data_bytes: int = 0,
    beside: tuple[Part, ...] = (),
) -> MemoryEstimate:
    """Peak of a PyTorch process that trains a model, or infers, on the CPU, `beside` its loaders.

    Attention with dropout runs as matrix products on the CPU, like eager attention. Raises
    UnsupportedWorkload.
    """
    training = isinstance(run, Training)
    run = replace(run, attention="eager", layout=Layout())
    prepared = prepare(Workload(source, run))
    pool = prepared.estimate(Layout(), 1, device_overhead(None, None)).pool("gpu")
    weights, states = _fixed(pool.phases, "weights"), _fixed(pool.phases, "optimizer-state")
    held = (
        *torch_process(),
        constant("process", "transformers").part("transformers", "its import"),
        constant("process", "transformers_model").part("model-class", "its import, initialisation"),
        *data_part(data_bytes),
        *beside,
        part("parameters", weights, "parameters x bytes", f"{weights:,} B", SOURCE, EXACT),
    )
    text = "states x parameters x bytes"
    kept = (part("optimizer-state", states, text, f"{states:,} B", SOURCE, EXACT),)
    noise = _float_noise(source.config, run) if isinstance(run, Training) else ()
    moments = [Moment("load", held)]
    for phase in pool.phases:
        live = max(0, _tensors(phase.parts) - weights - states)
        dynamic = part("tensors", live, "live tensors of the pass", f"{live:,} B", SOURCE)
        started = (*held, *first_step(training=training), *(kept if states else ()))
        masks = noise if phase.name in ("forward", "loss") else ()
        moments.append(Moment(phase.name, (*started, dynamic, *masks, heap_part(live))))
    return host_estimate(tuple(moments), prepared.architecture, "process")


def _fixed(phases: tuple[Phase, ...], name: str) -> int:
    """The best size of a part that lives through the run; 0 where there is none."""
    sizes = [p.size.best_bytes for phase in phases for p in phase.parts if p.name == name]
    return max(sizes, default=0)


def _tensors(parts: tuple[Part, ...]) -> int:
    """Bytes in tensors of a GPU phase: without the device's own overhead and the allocator's."""
    outside = ("device-context", "library-workspaces", "collective-buffers", "allocator-slack")
    return sum(p.size.best_bytes for p in parts if p.name not in outside)


def _float_noise(config: dict[str, Any], run: Training) -> tuple[Part, ...]:
    """Dropout on the CPU keeps its noise as float32 where CUDA keeps a bool: 3 B more."""
    hidden = float(config.get("hidden_dropout_prob", config.get("resid_pdrop", 0.0)) or 0)
    scores = float(config.get("attention_probs_dropout_prob", config.get("attn_pdrop", 0.0)) or 0)
    layers = int(config.get("num_hidden_layers", config.get("n_layer", 0)))
    width = int(config.get("hidden_size", config.get("n_embd", 0)))
    heads = int(config.get("num_attention_heads", config.get("n_head", 0)))
    tokens = run.seq_len
    elements = (
        layers
        * run.micro_batch
        * tokens
        * (2 * width * (hidden > 0) + heads * tokens * (scores > 0))
    )
    text = "3 B more an element of dropped tensors: residuals twice, scores once a layer"
    source = "aten/native/Dropout.cpp: the composite kernel keeps float noise"
    return (part("dropout-noise", 3 * elements, text, f"{elements:,} x 3 B", source),)
