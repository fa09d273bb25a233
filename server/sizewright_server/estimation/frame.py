"""What a model's forward method holds while its blocks run: embeddings, masks, position tables.

These tensors are made before the first block and die when the stack's forward method returns, after
the final norm; where a block saves them for backward, or checkpointing keeps the arguments of every
block, they live until the first block's backward has run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sizewright_server.estimation.adapters import has_prompt
from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.kernels import runs_eager
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.ops import BOOL, FP32, INT64
from sizewright_server.estimation.tape import Dim, Shape, Tape, Value

PART = "frame"
INT32 = 4


@dataclass(frozen=True, slots=True)
class Held:
    """One tensor of the frame. `until_backward`: it outlives the forward pass."""

    name: str
    shape: Shape
    itemsize: int
    until_backward: bool
    #: The first block makes it, not the segment before.
    of_block: bool = False


def frame(style: Style, mode: Mode, stack: str = "") -> tuple[Held, ...]:
    """Every tensor the stack's frame holds; `stack` distinguishes encoder and decoder."""
    width = mode.types.weight
    held: list[Held] = []
    rows: Dim = "B" if style.positions_per_sample else "one"
    if style.positions != "none":
        held.append(Held("position ids", (rows, "S"), INT64, mode.checkpointed))
    if style.holds_embeddings == "own":
        # T5's dropout hands them on as they are where nothing trains.
        whole = style.position_bias == "t5" and not mode.training
        shape: Shape = ("B", "S", "E")
        held.append(Held("embeddings", shape, width, until_backward=False, of_block=whole))
    elif style.holds_embeddings == "same" and not _saves_embeddings(mode):
        whole = style.residual_fp32 and not mode.training
        shape = ("B", "S", "H")
        held.append(Held("embeddings", shape, width, until_backward=False, of_block=whole))
    if style.positions == "rope":
        part = "D" if style.rotary == "full" else "R"
        part = "LROT" if style.latent else part
        for index in range(style.rotary_tables):
            for table in ("cos", "sin"):
                name = f"{table} {index}"
                first: Dim = "B" if style.rotary_per_sample else "one"
                held.append(Held(name, (first, "S", part), width, until_backward=mode.training))
    if style.positions == "learned" and style.holds_embeddings == "own":
        held.append(Held("position rows", (rows, "S", "E"), width, until_backward=False))
    if style.hands_keys and not mode.checkpointed:
        # What the block before chose has a name in the loop while a block makes its own choice.
        held.append(Held("chosen keys", ("B", "S", "IK"), INT32, until_backward=False))
    held += _biases(style, mode)
    held += _masks(style, mode)
    return tuple(replace(h, name=f"{stack}{h.name}") for h in held)


def _saves_embeddings(mode: Mode) -> bool:
    """Whether the first block has the embeddings for its backward pass: its norm or projections
    save them where they take a gradient, a checkpoint keeps them."""
    learns = mode.types.trains("embeddings") or has_prompt(mode.types) or mode.checkpointed
    return mode.training and learns


def _biases(style: Style, mode: Mode) -> list[Held]:
    """Biases by relative position, made once and added in every block."""
    width, keep = mode.types.weight, mode.checkpointed
    held: list[Held] = []
    if style.position_bias == "mpnet":
        every: Shape = ("B", "NH", "S", "C")
        held.append(Held("position bias", every, width, keep, of_block=True))
    if style.position_bias == "t5":
        shape: Shape = ("one", "NH", "S", "C")
        held.append(Held("position bias", shape, width, keep, of_block=True))
        if style.cross_attention:
            zeros: Shape = ("one", "NH", "S", "X")
            kind = mode.types.compute
            held.append(Held("cross bias", zeros, kind, keep, of_block=True))
    return held


def _masks(style: Style, mode: Mode) -> list[Held]:
    """Additive masks for eager attention, boolean ones for fused kernels where they need any."""
    keep = mode.checkpointed
    if style.disentangled != "none":
        # Made of a mask of ones where there is no padding; and each pair's distance (DeBERTa).
        pairs: Shape = ("S", "S")
        return [
            Held("mask 0", ("B", 1, "S", "S"), INT64 if mode.padded else FP32, keep),
            Held("distances", pairs, INT64, keep),
        ]
    if not style.causal_masks:
        return []
    if runs_eager(style, mode):
        if not (style.causal or mode.padded):
            return []
        kinds = 2 if style.mixed_windows else 1
        shape: Shape = ("B", 1, "S", "C")
        width = BOOL if style.alibi_widens else mode.types.weight
        return [Held(f"mask {i}", shape, width, keep) for i in range(kinds)]
    made = []
    if (mode.padded or style.always_masked) and not style.cross_attention:
        made.append(Held("mask 0", ("B", 1, "S", "C"), BOOL, keep))
    if mode.padded and style.cross_attention:
        made.append(Held("cross mask", ("B", 1, "S", "X"), BOOL, keep))
    if style.mixed_windows and mode.windowed and style.causal:
        rows = "B" if mode.padded else "one"
        made.append(Held("mask 1", (rows, 1, "S", "C"), BOOL, keep))
    return made


def open_frame(tape: Tape, style: Style, mode: Mode, stack: str = "") -> None:
    """Makes the frame's tensors in the segment before the first block."""
    with tape.within(PART):
        for held in frame(style, mode, stack):
            if held.of_block:
                continue
            value = tape.value(held.shape, held.itemsize, needs_grad=False)
            tape.record((), (value,))
            tape.lend(held.name, value)
            if held.until_backward:
                tape.release_in_backward(value)


def close_frame(tape: Tape, style: Style, mode: Mode, stack: str = "") -> None:
    """Frees what dies when the stack's forward method returns."""
    with tape.within(PART):
        for held in frame(style, mode, stack):
            if not held.until_backward:
                tape.reclaim(held.name, held.shape, held.itemsize)


def shared(tape: Tape, name: str, shape: Shape, itemsize: int) -> Value:
    """A tensor of the frame as a block reads it."""
    with tape.within(PART):
        return tape.borrow(name, shape, itemsize)
