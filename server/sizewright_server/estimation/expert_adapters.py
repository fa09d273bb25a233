"""LoRA over experts whose weights are one tensor for all (PEFT 0.21 on transformers 5).

What the targets gate_proj, up_proj and down_proj meant in older releases PEFT finds in the fused
weights (utils/transformers_weight_conversion.py), and with all-linear the router too; the linear
layers of these names, in dense layers and shared experts, it then leaves alone. A wrapper puts the
product of both factors onto the whole weight in every pass (tuners/lora/layer.py, ParamWrapper):
a copy as large as the experts, which their products save. Gate and up are one tensor of twice the
rank. Dimensions are those of `experts.py`, and AR the rank.
"""

from __future__ import annotations

from sizewright_server.estimation.architecture import Architecture, Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.ops import Ops
from sizewright_server.estimation.pointwise import Types
from sizewright_server.estimation.tape import Shape, Value
from sizewright_server.estimation.techniques import Adapter

METHODS = ("lora", "rslora")
#: Layers whose names mean parts of a fused weight.
GATE_AND_UP, DOWN = frozenset({"gate", "up"}), frozenset({"down"})
ROUTER = frozenset({"router"})


def renamed(types: Types, style: Style) -> bool:
    """PEFT takes the names of feed-forward layers for the experts'."""
    adapter = types.adapter
    if adapter is None or not style.adapts_experts:
        return False
    return adapter.method in METHODS and adapter.code == "transformers"


def adapts_experts(model: Architecture, adapter: Adapter, code: str) -> bool:
    """Whether an adapter of a run is on fused weights of experts."""
    if not model.style.adapts_experts or adapter.method not in METHODS or code != "transformers":
        return False
    return adapter.targets >= GATE_AND_UP or adapter.targets >= DOWN


def expert_weight(ops: Ops, style: Style, shape: Shape, parts: frozenset[str]) -> Value:
    """The weight of all experts as their product reads it, with its adapter's product on it."""
    w = ops.weight(shape)
    adapter = ops.types.adapter
    if adapter is None or not renamed(ops.types, style) or not parts <= adapter.targets:
        return w
    out, inner = shape[1:]
    factors = tuple(
        ops.adapter_weight((shape[0], len(parts), "AR", width)) for width in (out, inner)
    )
    with ops.tape.within("adapter"):
        narrow = tuple(ops.cast(factor, w.itemsize) for factor in factors)
        whole = ops.tape.value(w.shape, w.itemsize, needs_grad=True)

        def backward(run: Backward) -> None:
            if run.take(whole) is not None:
                for factor in narrow:
                    run.give(factor, run.like(factor))

        ops.tape.record((w, *narrow), (whole,), saves=narrow, backward=backward)
    return whole


def router_weight(ops: Ops, style: Style) -> Value:
    """The router's weight; its adapter's product is made in the adapter's type and added."""
    w = ops.weight(("N", "H"))
    adapter = ops.types.adapter
    if adapter is None or not renamed(ops.types, style) or not adapter.targets >= ROUTER:
        return w
    down, up = ops.adapter_weight(("AR", "H")), ops.adapter_weight(("N", "AR"))
    with ops.tape.within("adapter"):
        delta = ops.scale(ops.product_of(up, down, ("N", "H")))
        return ops.add(ops.cast(delta, w.itemsize), w)
