"""LLaMA-Adapter: queries attend a trained prompt too, whose answer a trained gate adds.

The prompt goes through a block's own frozen projections (litgpt adapter.py and adapter_v2.py, peft
tuners/adaption_prompt). The second version trains a bias and a scale of every linear layer and the
norms as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.tape import Value

if TYPE_CHECKING:
    from sizewright_server.estimation.ops import Ops, Types

FP32 = 4
METHODS = ("adaption-prompt", "adapter-v2")
#: The first blocks go without a prompt (litgpt: adapter_start_layer; PEFT: the topmost 30 of 32).
BLOCKS_WITHOUT = 2


def has_gated_prompt(types: Types) -> bool:
    """Blocks attend a prompt of their own."""
    return types.adapter is not None and types.adapter.method in METHODS


def answer_prompt(ops: Ops, q: Value, mixed: Value) -> Value:
    """`mixed + gate * attention(q, prompt)`: saves the queries, the prompt's answer and a sum."""
    with ops.tape.within("adapter"):
        prompt = ops.adapter_weight(("AV", "H"))
        answer = ops.tape.value(mixed.shape, mixed.itemsize, needs_grad=True)
        sums = ops.tape.value(("B", "NH", "S"), FP32, needs_grad=False)

        def backward(run: Backward) -> None:
            if run.take(answer) is not None:
                for value in (q, prompt):
                    if value.needs_grad:
                        run.give(value, run.like(value))

        ops.tape.record((q, prompt), (answer, sums), saves=(q, answer, sums), backward=backward)
        gated = ops.multiply(answer, ops.adapter_weight(("NH",)))
        ops.tape.hold(answer)
        return ops.add(mixed, gated)


def shifted_and_scaled(ops: Ops, x: Value) -> Value:
    """`scale * (x + bias)`, both trained: the sum is saved."""
    with ops.tape.within("adapter"):
        width = (x.shape[-1],)
        summed = ops.add(x, ops.adapter_weight(width))
        return ops.multiply(summed, ops.adapter_weight(width))
