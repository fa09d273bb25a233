"""Lowers transformer blocks to tapes, operator by operator.

The operators and their order are those of the modelling code of transformers 5.23 in eager mode.
Dimension names: B samples, S tokens, H hidden, A query width, K key/value width, NH query heads,
NK key/value heads, D head dim, R rotary dim, F feed-forward width, V vocabulary, P position rows,
T token types, E embedding width, L labels, SR tokens of the residual stream on a
sequence-parallel rank, C cached tokens (S and those before), X the encoder's
tokens. Under tensor parallelism A, K, NH, NK, F (and V where the head is split) are one rank's
share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.attention import Attention
from sizewright_server.estimation.delta_net import delta_net
from sizewright_server.estimation.disentangled import convolved
from sizewright_server.estimation.experts import sparse_feed_forward
from sizewright_server.estimation.feedforward import feed_forward
from sizewright_server.estimation.mamba import mamba_mixer
from sizewright_server.estimation.mamba2 import mamba2_mixer
from sizewright_server.estimation.mode import WHOLE, Mode
from sizewright_server.estimation.norms import norm
from sizewright_server.estimation.ops import BOOL, FP32, Ops
from sizewright_server.estimation.tape import Tape, Value

__all__ = ["STATES", "Block", "Mode", "residual_itemsize"]

#: What mixes tokens in the place of attention.
MIXERS: Mapping[str, Callable[[Ops, Style, Mode, Value, list[Value]], Value]] = {
    "delta-net": delta_net,
    "delta-net-joint": delta_net,
    "mamba": mamba_mixer,
    "mamba2": mamba2_mixer,
}

#: The name under which an encoder's states are lent to the decoder.
STATES = "encoder states"


class Block:
    """One transformer block on its tape."""

    def __init__(self, style: Style, mode: Mode) -> None:
        self.style, self.mode = style, mode
        self.tape = Tape()
        self.ops = Ops(self.tape, mode.types, training=mode.training)
        self.ops.borrows = style.borrowed
        self.attention = Attention(self.ops, style, mode)

    def lower(self) -> Tape:
        """The whole block: hidden states in, hidden states out."""
        if self.style.mask_buffer == "block":
            self.tape.buffers.append((("P", "P"), BOOL))
        if self.style.position_buffer:
            self.tape.buffers.append((("P", "R"), FP32))
        stream = _input_itemsize(self.style, self.mode)
        learns = self.mode.training and self.mode.learns_inputs
        x = self.tape.input(self.mode.stream, stream, needs_grad=learns)
        before = self._outputs_before()
        out = getattr(self, f"_{self.style.order.replace('-', '_')}")(x)
        if self.style.convolution and self.style.first:
            out = convolved(self.ops, self.style, self.mode, x, out)
        out = self._clamped_at_end(out)
        self.tape.hold(x, *self.attention.held, *before)
        if self.style.position_bias == "t5" and self.style.first and not self.mode.training:
            stack = "decoder" if self.style.causal else "encoder"
            self.tape.lend(f"{stack} embeddings", x)
        if self.style.residual_fp32 and self.style.first and not self.mode.training:
            self.tape.lend("embeddings", x)
        self.tape.inputs_stay = self.style.keeps_states and not self.mode.training
        self.tape.finish(out, *self.attention.cached)
        return self.tape

    def _outputs_before(self) -> list[Value]:
        """Probabilities of the block before, which the loop names until this block returns.

        In training autograd has them anyway. A stack of one block is overstated by them.
        """
        eager = self.mode.attention == "eager" or self.style.eager_only
        if self.mode.training or not (eager and self.style.keeps_outputs):
            return []
        with self.tape.within("attention"):
            width = self.mode.types.compute
            weights = self.tape.value(("B", "NH", "S", "C"), width, needs_grad=False)
            self.tape.record((), (weights,))
        return [weights]

    # -- wiring ---------------------------------------------------------------------------------

    def _pre(self, x: Value) -> Value:
        if self.style.attends:
            x = self._pre_attention(x)
        if self.style.cross_attention:
            x = self._residual(x, self._across(self._norm(x)))
        if not self.style.feeds_forward:
            # What a block without either half gives is what it was given.
            return x if self.style.attends else self.tape.view(x, x.shape)
        return self._residual(x, self._scaled(self._mlp(self._norm(x))))

    def _pre_attention(self, x: Value) -> Value:
        if self.style.residual_fp32:
            return self._pre_in_fp32(x)
        normed = self._norm(x) if self.style.first_norm or not self.style.first else x
        if self.style.holds_normed:
            self.attention.held.append(normed)
        return self._residual(x, self._scaled(self._attend(normed)))

    def _pre_in_fp32(self, x: Value) -> Value:
        """Mamba's block: the norm reads the weights' type, the sum is in fp32."""
        narrow = self.ops.cast(x, self.mode.types.weight)
        normed = self._norm(narrow)
        self.tape.hold(narrow)
        return self._residual(self.ops.cast(x, FP32), self._attend(normed))

    def _post(self, x: Value) -> Value:
        x = self._normed_sum(self._attend(x), x)
        if self.style.cross_attention:
            x = self._normed_sum(self._across(x), x)
        return self._normed_sum(self._mlp(x), x)

    def _normed_sum(self, result: Value, x: Value) -> Value:
        """The norm of the sum; until it is made, BERT's modules name all that it comes from."""
        normed = self._norm(self._residual(result, x))
        self.tape.hold(result, *self.attention.mixed, x)
        self.attention.mixed = []
        return normed

    def _parallel(self, x: Value) -> Value:
        normed = self._norm(x)
        attended = self._attend(normed)
        out = self._mlp(normed)
        return self._residual(self._residual(attended, out), x)

    def _parallel_two_norms(self, x: Value) -> Value:
        attended = self._attend(self._norm(x))
        out = self._mlp(self._norm(x))
        return self._residual(self._residual(out, attended), x)

    def _sandwich(self, x: Value) -> Value:
        x = self._residual(x, self._norm(self._attend(self._norm(x))))
        return self._residual(x, self._norm(self._mlp(self._norm(x))))

    def _inner_post(self, x: Value) -> Value:
        x = self._residual(x, self._norm(self._attend(x)))
        return self._residual(x, self._norm(self._mlp(x)))

    # -- halves ---------------------------------------------------------------------------------

    def _attend(self, x: Value) -> Value:
        if self.style.mixer != "attention":
            with self.tape.within("recurrence"):
                mix = MIXERS[self.style.mixer]
                whole, cached = self._gathered(x), self.attention.cached
                return self._split(mix(self.ops, self.style, self.mode, whole, cached))
        attended = self._split(self.attention.own(self._gathered(x)))
        if self.style.holds_attended:
            self.attention.held.append(attended)
        return attended

    def _across(self, x: Value) -> Value:
        """Attention over the encoder's states, whose gradient the last block makes."""
        shape, width = ("B", "X", "H"), residual_itemsize(self.style, self.mode)
        if self.style.last and self.mode.training:
            memory = self.tape.borrow_last(STATES, shape, width)
        else:
            memory = self.tape.borrow(STATES, shape, width, needs_grad=self.mode.training)
        return self.attention.across(x, memory)

    def _scaled(self, x: Value) -> Value:
        """A learned scale of every channel (DINOv2)."""
        return self.ops.multiply(x, self.ops.weight(("H",))) if self.style.layer_scale else x

    def _mlp(self, x: Value) -> Value:
        with self.tape.within("mlp"):
            x = self._gathered(x)
            if self.style.experts:
                out = sparse_feed_forward(self.ops, self.style, self.mode, x)
            else:
                out = feed_forward(self.ops, self.style, self.mode, x, names=self.attention.mixed)
            return self.ops.dropout(self._split(out), float(self.mode.hidden_dropout))

    def _gathered(self, x: Value) -> Value:
        """All tokens, for the layers that tensor parallelism splits by their width."""
        return self.ops.reshard(x, WHOLE) if self.mode.sequence_parallel else x

    def _split(self, x: Value) -> Value:
        return self.ops.reshard(x, self.mode.stream) if self.mode.sequence_parallel else x

    def _norm(self, x: Value) -> Value:
        with self.tape.within("norm"):
            return norm(self.ops, self.style, x, ("H",))

    def _residual(self, x: Value, y: Value) -> Value:
        with self.tape.within("residual"):
            if self.style.residual_scale:
                y = self.ops.scale(y)
            out = self.ops.add(x, y)
            return self.ops.clamp(out) if self._clamps("sums") else out

    def _clamps(self, where: str) -> bool:
        types = self.mode.types
        return self.style.clamps == where and types.float16 and not types.autocast

    def _clamped_at_end(self, out: Value) -> Value:
        infinite = self._clamps("encoder-infinite") and self.mode.types.traced
        if self.style.causal or not (infinite or self._clamps("encoder")):
            return out
        return self.ops.clamp(out)


def _input_itemsize(style: Style, mode: Mode) -> int:
    """As the residual stream, but what the embedding gives is in the weights' type."""
    if style.residual_fp32 and style.first:
        return mode.types.weight
    return residual_itemsize(style, mode)


def residual_itemsize(style: Style, mode: Mode) -> int:
    """Bytes per element of the residual stream: under autocast it stays in the weights' type."""
    if style.residual_fp32:
        return FP32
    return mode.types.weight if mode.types.autocast else mode.types.compute
