"""Layers of Megatron Core that predict further tokens (core/transformer/multi_token_prediction.py).

Each joins the normed states before it and the normed embeddings of the tokens one further, projects
both to the width of the model and runs one more layer, wired as the last one is. The states of all
depths go through the one output head, each for a loss of its own; all losses' logits are there
until the backward pass. They stand on the last pipeline stage, which has a copy of the embedding
for them. Dimensions: VPC rows of that copy, H2 two hidden states, HT a rank's share of the
projection's width, HP the same where it has to be gathered.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sizewright_server.estimation import megatron_heads
from sizewright_server.estimation.again import Again, NeverAgain
from sizewright_server.estimation.architecture import HeadStyle, Run, Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.megatron import Layers
from sizewright_server.estimation.megatron_block import layer
from sizewright_server.estimation.mode import WHOLE, Mode
from sizewright_server.estimation.parallel import ParallelColumns
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.tape import Tape, Value


def with_further(runs: tuple[Run, ...], mode: Mode) -> tuple[Run, ...]:
    """A model's runs, whose head is wired as the last layer where layers like it stand before."""
    if not mode.further_layers:
        return runs
    last = runs[-2]
    return (*runs[:-1], replace(runs[-1], style=last.style, sizes=last.sizes))


def further_dims(padded: Column, hidden: int, ranks: ParallelColumns) -> dict[str, Column]:
    """The dimensions that such layers bring; `padded` rows of the vocabulary are a rank's own."""
    share = -(-hidden // ranks.tp)
    return {
        "VPC": np.where(ranks.pp > 1, padded, 0),
        "H2": np.full_like(ranks.tp, 2 * hidden),
        "HT": share,
        "HP": np.where(ranks.tp > 1, share, 0),
    }


def lower_head(style: Style, head: HeadStyle, mode: Mode) -> Tape:
    """The head; before it the layers that predict further tokens, where there are any."""
    if not mode.further_layers:
        return megatron_heads.lower_head(style, head, mode)
    layers = Layers(style, mode, "head")
    tape = layers.tape
    states = [_normed(layers, tape.input(mode.stream, layers.width, needs_grad=True))]
    table = _table(layers)
    for _ in range(mode.further_layers):
        states.append(_further(layers, states[-1], table))
    main, *further = _chunks(layers, states)
    weight = layers.ops.weight(("VP", "H"))
    for state in further:
        main = _with_loss(layers, main, _loss(layers, state, _shared(weight)))
    tape.finish(_loss(layers, main, weight))
    return tape


def _normed(layers: Layers, x: Value) -> Value:
    with layers.tape.within("norm"):
        return layers.norm(x)


def _table(layers: Layers) -> Value:
    """The embedding's table, whose gradient is added to: its own, or a copy on another stage."""
    layers.ops.weight(("VPC", "E"))
    table = layers.ops.weight(("VP", "E"))
    layers.tape.parameters.remove(table)
    table.adds = True
    return table


def _further(layers: Layers, before: Value, table: Value) -> Value:
    """One depth: what the last layer gives of the embeddings and the states before, normed."""
    mode = layers.mode
    with layers.tape.within("embedding"):
        looked_up = layers.ops.copy(layers.ops.embedding(("B", "S"), table, "E"), mode.stream)
    whole = mode.checkpointed and not mode.recompute_modules
    remade = Again(layers.tape) if whole else NeverAgain()
    both = _normed(layers, looked_up), _normed(layers, before)
    joined = layers.ops.concatenate(both, (*mode.stream[:-1], "H2"))
    out = _normed(layers, layer(layers, _projected(layers, joined)))
    remade.stop()
    remade.close()
    return out


def _projected(layers: Layers, joined: Value) -> Value:
    """The projection: column-parallel, its parts gathered, and of these a rank's own tokens, a view
    of all. On one rank nothing is gathered."""
    tape = layers.tape
    part = layers.column(joined, "HP", bias=False, w=layers.ops.weight(("HT", "H2")))
    whole = layers.hidden(WHOLE)

    def split_up(run: Backward) -> None:
        if run.take(whole) is not None:
            run.give(part, run.like(part))

    tape.record((part,), (whole,), backward=split_up)
    if not layers.mode.sequence_parallel:
        return whole
    own = Value(whole.storage, layers.mode.stream, whole.itemsize, needs_grad=True)

    def gather(run: Backward) -> None:
        if run.take(own) is not None:
            run.give(whole, run.like(whole))

    tape.record((whole,), (own,), backward=gather)
    return own


def _chunks(layers: Layers, states: list[Value]) -> list[Value]:
    """The states of all depths side by side in one tensor, as the head's views of it."""
    joined = layers.ops.concatenate(tuple(states), (len(states), *layers.mode.stream))
    views = [Value(joined.storage, s.shape, s.itemsize, needs_grad=True) for s in states]

    def backward(run: Backward) -> None:
        taken = [run.take(view) for view in views]
        if any(grad is not None for grad in taken):
            run.give(joined, run.like(joined))

    layers.tape.record((joined,), tuple(views), backward=backward)
    return views


def _shared(weight: Value) -> Value:
    """The head's weight in another product, whose gradient is added to it."""
    shared = Value(weight.storage, weight.shape, weight.itemsize, weight.needs_grad)
    shared.parameter = shared.adds = True
    return shared


def _loss(layers: Layers, x: Value, weight: Value) -> Value:
    logits = layers.column(x, "VP", bias=False, w=weight)
    with layers.tape.within("loss"):
        return megatron_heads.loss_of(layers, logits)


def _with_loss(layers: Layers, main: Value, loss: Value) -> Value:
    """The main states, whose gradient on its way back starts the loss's own backward pass."""
    out = Value(main.storage, main.shape, main.itemsize, needs_grad=True)

    def backward(run: Backward) -> None:
        grad = run.take(out)
        if grad is not None:
            run.give(main, grad)
            run.give(loss, run.like(loss))

    layers.tape.record((main, loss), (out,), saves=(loss,), backward=backward)
    return out
