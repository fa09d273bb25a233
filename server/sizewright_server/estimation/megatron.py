"""Lowers the layers of Megatron Core to tapes: fused norms, one weight for queries, keys and
values, sequence parallelism, and a vocabulary-parallel loss.

Operators and what they keep follow Megatron Core's GPT, BERT and T5 layers with Transformer Engine
(LayerNormLinear keeps its input, the normalised input and the statistics; DotProductAttention keeps
q, k, v, its result and the log-sum-exp) and, for `local` layers, its own fused kernels, which keep
the same; vocab_parallel_cross_entropy works in place on an fp32 copy of the logits. The totals
agree with arXiv 2205.05198 (34 bytes x tokens x hidden for a GPT layer, divided by tp under
sequence parallelism). Dimensions are those of `transformer.py`, and SR: tokens of the residual
stream on one rank; VP: the padded vocabulary's share.
"""

from __future__ import annotations

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.feedforward import split
from sizewright_server.estimation.megatron_experts import mixture
from sizewright_server.estimation.mode import WHOLE, Mode
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.pointwise import BOOL
from sizewright_server.estimation.tape import Dim, Shape, Tape, Value
from sizewright_server.estimation.transformer import STATES


class Layers:
    """The operators of Megatron Core on one tape."""

    def __init__(self, style: Style, mode: Mode, part: str) -> None:
        self.style, self.mode = style, mode
        self.tape = Tape(part=part)
        self.ops = Ops(self.tape, mode.types, training=mode.training)
        self.width = mode.types.compute

    def hidden(self, shape: Shape | None = None) -> Value:
        """A fresh tensor that needs a gradient; of the residual stream unless told."""
        return self.tape.value(shape or self.mode.stream, self.width, needs_grad=True)

    def norm(self, x: Value) -> Value:
        """Layer norm or RMS norm as one kernel: saves its input and the statistics."""
        rms = self.style.norm.startswith("rms")
        out = self.hidden(x.shape)
        rows = x.shape[:-1]
        stats = [self.tape.value(rows, FP32, needs_grad=False) for _ in range(1 if rms else 2)]
        weights = [self.ops.weight(("H",)) for _ in range(1 if rms else 2)]

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                for value in (x, *weights):
                    run.give(value, run.like(value))

        self.tape.record((x, *weights), (out, *stats), saves=(x, *stats), backward=backward)
        return out

    def column(self, x: Value, width: Dim, *, bias: bool) -> Value:
        """A column-parallel linear layer: the whole sequence is gathered in both passes."""
        w = self.ops.weight((width, "H"))
        extra = (self.ops.weight((width,)),) if bias else ()
        gathered = self.mode.sequence_parallel
        full = (self.tape.value(WHOLE, self.width, needs_grad=False),) if gathered else ()
        self.tape.record((x,), full)
        out = self.hidden((*WHOLE[:-1], width))

        def backward(run: Backward) -> None:
            if run.take(out) is None:
                return
            again = run.new(WHOLE, self.width) if gathered else None
            grad = run.new(WHOLE, self.width, "gradient of activations")
            run.give(w, run.like(w))
            for value in extra:
                run.give(value, run.like(value))
            if again is not None:
                run.free(again)
                run.give(x, run.like(x))
            else:
                run.give(x, grad)

        self.tape.record((x, w, *extra, *full), (out,), saves=(x,), backward=backward)
        return out

    def row(self, x: Value, width: Dim, *, bias: bool) -> Value:
        """A row-parallel linear layer: partial sums are reduced in place, or to sequence shards."""
        w = self.ops.weight(("H", width))
        extra = (self.ops.weight(("H",)),) if bias else ()
        partial = self.hidden(WHOLE)

        def backward(run: Backward) -> None:
            if run.take(partial) is None:
                return
            run.give(x, run.like(x))
            run.give(w, run.like(w))
            for value in extra:
                run.give(value, run.like(value))

        self.tape.record((x, w, *extra), (partial,), saves=(x,), backward=backward)
        if not self.mode.sequence_parallel:
            return partial
        out = self.hidden()

        def gather(run: Backward) -> None:
            if run.take(out) is not None:
                run.give(partial, run.like(partial))

        self.tape.record((partial,), (out,), backward=gather)
        return out

    def dropout_add(self, x: Value, residual: Value) -> Value:
        """Bias, dropout and the residual sum as one kernel: saves the mask alone."""
        out = self.hidden(residual.shape)
        drops = self.mode.hidden_dropout
        mask = (self.tape.value(x.shape, BOOL, needs_grad=False),) if drops else ()

        def backward(run: Backward) -> None:
            grad = run.take(out)
            if grad is not None:
                run.give(residual, grad)
                run.give(x, run.like(x) if drops else grad)

        self.tape.record((x, residual), (out, *mask), saves=mask, backward=backward)
        return out

    # -- attention ------------------------------------------------------------------------------

    def attention(self, x: Value, memory: Value | None = None) -> Value:
        """Self-attention, or a decoder's over the encoder's states."""
        with self.tape.within("attention"):
            if memory is None:
                joint = self.column(x, "QKV", bias=self.style.qkv_bias)
                q, k, v = self._heads(joint)
                keys: Dim = "C"
            else:
                q = self.column(x, "A", bias=self.style.qkv_bias)
                k, v = self._memory(memory)
                keys = "X"
            mixed = self._unfused(q, k, v, keys) if self._eager() else self._fused(q, k, v)
            return self.row(mixed, "A", bias=self.style.out_bias)

    def _eager(self) -> bool:
        return self.mode.attention == "eager"

    def _heads(self, joint: Value) -> tuple[Value, Value, Value]:
        """Views of the joint projection; where heads are grouped or turned, copies of all three.

        Transformer Engine takes interleaved views as they are only where every head has its own
        keys (attention.py, get_qkv_layout); the joint projection dies otherwise.
        """
        q, k, v = split(self.tape, joint, ("A", "K", "K"))
        if self.style.positions == "rope" or self.mode.grouped_queries:
            q, k, v = self._turned(q), self._turned(k), self._turned(v)
        return q, k, v

    def _turned(self, x: Value) -> Value:
        out = self.hidden(x.shape)

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                run.give(x, run.like(x))

        self.tape.record((x,), (out,), backward=backward)
        return out

    def _memory(self, memory: Value) -> tuple[Value, Value]:
        """Keys and values of the encoder's states, one weight."""
        w = self.ops.weight(("KV2", "H"))
        joint = self.hidden(("B", "X", "KV2"))

        def backward(run: Backward) -> None:
            if run.take(joint) is not None:
                run.give(memory, run.like(memory))
                run.give(w, run.like(w))

        self.tape.record((memory, w), (joint,), saves=(memory,), backward=backward)
        k, v = split(self.tape, joint, ("K", "K"))
        return k, v

    def _fused(self, q: Value, k: Value, v: Value) -> Value:
        return self.ops.fused_attention(q, k, v, ("B", "S", "A"), ("B", "NH", "S"))

    def _unfused(self, q: Value, k: Value, v: Value, keys: Dim) -> Value:
        """Scores, fused mask and softmax, dropout, mixing; recomputed where that is selected."""
        square: Shape = ("B", "NH", "S", keys)
        if self.mode.recomputes_attention:
            return self._recomputed(q, k, v, square)
        scores = self.ops.matmul(q, k, square)
        likely = self.ops.softmax(scores, self.width)
        likely = self.ops.dropout(likely, float(self.mode.attention_dropout))
        mixed = self.ops.matmul(likely, v, ("B", "NH", "S", "D"))
        return self.ops.copy(mixed, ("B", "S", "A"))

    def _recomputed(self, q: Value, k: Value, v: Value, square: Shape) -> Value:
        """Selective recomputation: the scores' matrices are made again in the backward pass."""
        matrices = [self.tape.value(square, self.width, needs_grad=False) for _ in range(2)]
        self.tape.record((q, k), tuple(matrices))
        out = self.hidden(("B", "S", "A"))

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                for _ in range(4):
                    run.new(square, self.width)
                for value in (q, k, v):
                    run.give(value, run.like(value))

        self.tape.record((q, k, v, *matrices), (out,), saves=(q, k, v), backward=backward)
        return out

    # -- feed-forward ---------------------------------------------------------------------------

    def feed_forward(self, x: Value) -> Value:
        """Two linear layers and one kernel between them, which saves its input."""
        with self.tape.within("mlp"):
            style = self.style
            if style.experts:
                return mixture(self, x)
            joint: Dim = "F2" if style.gated_mlp else "F"
            inner = self.column(x, joint, bias=style.mlp_bias)
            return self.row(self.activate(inner, "F"), "F", bias=style.mlp_bias)

    def activate(self, x: Value, width: Dim) -> Value:
        out = self.hidden((*x.shape[:-1], width))
        squared = self.style.activation == "relu-squared"
        kept = self.hidden(x.shape) if squared else x

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                run.give(x, run.like(x))

        if squared:
            self.tape.record((x,), (kept,))
        self.tape.record((x, kept), (out,), saves=(kept,), backward=backward)
        return out


def lower_block(style: Style, mode: Mode) -> Tape:
    """One layer: norm, attention, sum (twice in a decoder of two stacks); norm, MLP, sum."""
    layers = Layers(style, mode, "block")
    tape = layers.tape
    x = tape.input(mode.stream, layers.width, needs_grad=True)
    with tape.within("norm"):
        normed = layers.norm(x)
    middle = _summed(layers, layers.attention(normed), x)
    if style.cross_attention:
        shape = ("B", "X", "H")
        if style.last:
            memory = tape.borrow_last(STATES, shape, layers.width)
        else:
            memory = tape.borrow(STATES, shape, layers.width, needs_grad=True)
        with tape.within("norm"):
            normed = layers.norm(middle)
        middle = _summed(layers, layers.attention(normed, memory), middle)
    with tape.within("norm"):
        normed = layers.norm(middle)
    tape.finish(_summed(layers, layers.feed_forward(normed), middle))
    return tape


def _summed(layers: Layers, x: Value, residual: Value) -> Value:
    with layers.tape.within("residual"):
        return layers.dropout_add(x, residual)
