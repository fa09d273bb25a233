"""Runs the steps of a workload: training steps, a forward pass, or prefill and decode."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

# isort: split
import cuda_guard  # noqa: F401  (before torch)

# isort: split
import torch
import transformers

from fake_cuda import DTYPES
from memory_trace import MemoryTrace, rounded


def make_inputs(workload: dict[str, Any], config: Any) -> dict[str, torch.Tensor]:
    """Model inputs of the workload's shape; training adds labels."""
    batch, training = workload["batch"], workload["mode"] == "train"
    if workload.get("seq") is None:
        size = workload.get("image") or getattr(config, "image_size", None) or 224
        shape = (batch, config.num_channels, size, size)
        layout = torch.channels_last if workload.get("channels_last") else torch.contiguous_format
        dtype = DTYPES[workload["param_dtype"]]
        pixels = torch.empty(shape, dtype=dtype, device="cuda", memory_format=layout)
        inputs = {"pixel_values": pixels}
    else:
        inputs = {"input_ids": torch.empty(batch, workload["seq"], dtype=torch.long, device="cuda")}
        if workload.get("padded_mask"):
            inputs["attention_mask"] = torch.empty(
                batch, workload["seq"], dtype=torch.long, device="cuda"
            )
    if training:
        per_item = workload.get("head") == "seqcls" or "pixel_values" in inputs
        length = workload.get("target_seq") or workload.get("seq")
        label_shape = (batch,) if per_item else (batch, length)
        inputs["labels"] = torch.empty(label_shape, dtype=torch.long, device="cuda")
    elif workload.get("target_seq"):
        inputs["decoder_input_ids"] = torch.empty(
            batch, workload["target_seq"], dtype=torch.long, device="cuda"
        )
    return inputs


def build_optimizer(workload: dict[str, Any], model: torch.nn.Module) -> torch.optim.Optimizer:
    """The torch optimizer and implementation the workload names, over the trainable parameters."""
    name, how = workload["optimizer"], workload["opt_impl"]
    if how not in ("foreach", "fused", "forloop"):
        raise ValueError(f"opt_impl: {how!r} is unknown; say foreach, fused or forloop")
    flags = {"foreach": how == "foreach", "fused": how == "fused"}
    parameters = [p for p in model.parameters() if p.requires_grad]
    makers: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adamw": lambda: torch.optim.AdamW(parameters, lr=1e-4, **flags),
        "adam": lambda: torch.optim.Adam(parameters, lr=1e-4, **flags),
        "sgd": lambda: torch.optim.SGD(parameters, lr=1e-2, **flags),
        "sgd_momentum": lambda: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, **flags),
    }
    if name not in makers:
        raise ValueError(f"optimizer: {name!r} is unknown; say one of {', '.join(makers)}")
    # The step counts of the non-fused implementations live on the host and have no value here.
    vars(importlib.import_module("torch.optim.adam"))["_get_value"] = lambda _value: 1.0
    return makers[name]()


def autocast(workload: dict[str, Any]) -> torch.autocast:
    """Mixed precision as the workload's ``amp`` says."""
    amp = workload.get("amp")
    return torch.autocast("cuda", DTYPES[amp] if amp else torch.float16, enabled=bool(amp))


def train(
    workload: dict[str, Any], model: Any, trace: MemoryTrace, steps: int = 2
) -> dict[str, Any]:
    """Runs whole training steps; gradients of a step live until the next begins, as in most
    training loops.
    """
    optimizer = build_optimizer(workload, model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(
                lambda p: trace.categorise([p.grad], "grad")
            )
    marks = []
    for step in range(1, steps + 1):
        mark: dict[str, Any] = {"live_before": trace.live_bytes}
        optimizer.zero_grad(set_to_none=True)
        trace.enter_phase("input", step)
        for _ in range(workload.get("grad_accum") or 1):
            held = None  # the last micro-batch's logits die before the next forward pass
            held = forward_backward(workload, model, trace, mark)
        trace.enter_phase("opt")
        optimizer.step()
        states = [v for state in optimizer.state.values() for v in state.values()]
        trace.categorise([v for v in states if isinstance(v, torch.Tensor)], "optim")
        mark["live_end_step"] = trace.live_bytes
        mark["phase_peaks"] = {p: size for (s, p), size in trace.phase_peaks.items() if s == step}
        marks.append(mark)
        del held
    return {
        "steps": marks,
        "optimizer_state_bytes": trace.by_category["optim"],
        "grad_bytes": trace.by_category["grad"],
    }


def forward_backward(
    workload: dict[str, Any], model: Any, trace: MemoryTrace, mark: dict[str, Any]
) -> tuple[Any, ...]:
    """One micro-batch; what the caller's loop still holds afterwards is returned."""
    trace.enter_phase("input")
    inputs = make_inputs(workload, model.config)
    trace.enter_phase("fwd")
    with autocast(workload):
        outputs = model(**inputs)
    loss = outputs.loss
    if (workload.get("grad_accum") or 1) > 1:
        loss = loss / workload["grad_accum"]
    mark["live_end_fwd"], mark["end_fwd_by_cat"] = trace.live_bytes, trace.breakdown()
    trace.enter_phase("bwd")
    loss.backward()
    mark["live_end_bwd"] = trace.live_bytes
    return inputs, outputs, loss


def infer(workload: dict[str, Any], model: Any, trace: MemoryTrace) -> dict[str, Any]:
    """A forward pass, followed by ``decode`` single-token steps with a cache when the workload
    decodes.
    """
    trace.enter_phase("input", 1)
    inputs: dict[str, Any] = make_inputs(workload, model.config)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(autocast(workload))
        if not workload.get("decode"):
            trace.enter_phase("fwd")
            outputs = model(**inputs)
            figures = {
                "peak_forward": trace.phase_peaks[(1, "fwd")],
                "live_end_fwd": trace.live_bytes,
            }
            del outputs
            return figures
        return generate(workload, model, trace, inputs)


def generate(
    workload: dict[str, Any], model: Any, trace: MemoryTrace, inputs: dict[str, Any]
) -> dict[str, Any]:
    """Prefill and decode as a generation loop does: logits of the last position unless
    ``logits_to_keep`` is 0.
    """
    cache = make_cache(workload, model)
    keep = workload.get("logits_to_keep")
    trace.enter_phase("fwd")
    outputs = model(
        **inputs, past_key_values=cache, use_cache=True, logits_to_keep=1 if keep is None else keep
    )
    figures = {
        "peak_prefill": trace.phase_peaks[(1, "fwd")],
        "kv_cache_bytes_after_prefill": cache_bytes(cache),
    }
    trace.enter_phase("fwd", 2)
    for _ in range(workload["decode"]):
        token = outputs.logits[:, -1:].argmax(dim=-1)
        outputs = None
        outputs = model(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1)
    figures["peak_decode"] = trace.phase_peaks[(2, "fwd")]
    figures["kv_cache_bytes_end"] = cache_bytes(cache)
    return figures


def make_cache(workload: dict[str, Any], model: Any) -> Any:
    kind = workload.get("cache")
    if kind in (None, "dynamic"):
        return transformers.DynamicCache(config=model.config)
    if kind == "static":
        length = workload["seq"] + workload["max_new_tokens"]
        return transformers.StaticCache(config=model.config, max_cache_len=length)
    raise ValueError(f"cache: {kind!r} is unknown; say dynamic or static")


def cache_bytes(cache: Any) -> int:
    """Bytes of everything the cache holds on the GPU."""
    tensors = (
        v for layer in cache.layers for v in vars(layer).values() if isinstance(v, torch.Tensor)
    )
    return sum(rounded(t.untyped_storage().nbytes()) for t in tensors if t.device.type == "cuda")
