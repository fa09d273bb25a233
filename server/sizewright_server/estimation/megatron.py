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

from sizewright_server.estimation.adapters import low_rank
from sizewright_server.estimation.again import Again, NeverAgain, moved_away
from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.feedforward import split
from sizewright_server.estimation.megatron_experts import mixture
from sizewright_server.estimation.megatron_latent import latent_attention
from sizewright_server.estimation.mode import WHOLE, Mode
from sizewright_server.estimation.ops import BYTE, FP32, Ops
from sizewright_server.estimation.pointwise import BOOL
from sizewright_server.estimation.tape import Dim, Shape, Tape, Value

#: Linear layers by the names that people give to those which Megatron Core joins.
ADAPTED = {
    "qkv": ("q", "k", "v", "qkv"),
    "proj": ("o",),
    "q_down": ("q_a",),
    "q_up": ("q", "q_b"),
    "kv_down": ("kv_a",),
    "kv_up": ("kv_b",),
    "fc1": ("gate", "up", "gate_up"),
    "fc2": ("down",),
}


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

    def remade(self, *modules: str, of: bool = True) -> Again | NeverAgain:
        """Operators to come that run again in the backward pass, where that is selected."""
        chosen = of and not self.mode.recompute_modules.isdisjoint(modules)
        return Again(self.tape) if chosen else NeverAgain()

    def moved(self, start: int, stop: int | None = None) -> None:
        """What operators from `start` on save waits in host memory, where modules are offloaded."""
        if self.mode.moves_inputs:
            moved_away(self.tape, start, self.here if stop is None else stop)

    @property
    def here(self) -> int:
        """Where the next operator will stand."""
        return len(self.tape.ops)

    def norm(self, x: Value) -> Value:
        """Layer norm or RMS norm as one kernel: saves its input and the statistics."""
        rms = self.style.norm.startswith("rms")
        out = self.hidden(x.shape)
        rows = x.shape[:-1]
        stats = [self.tape.value(rows, FP32, needs_grad=False) for _ in range(1 if rms else 2)]
        weights = [self.ops.weight(x.shape[-1:]) for _ in range(1 if rms else 2)]

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                for value in (x, *weights):
                    run.give(value, run.like(value))

        self.tape.record((x, *weights), (out, *stats), saves=(x, *stats), backward=backward)
        return out

    def kept(self, x: Value) -> Value:
        """The input as a linear layer saves it: quantised once, where products are narrow."""
        if not self.mode.types.product:
            return x
        with self.tape.within("narrow copies"):
            copy = self.tape.value(x.shape, BYTE, needs_grad=False)
            self.tape.record((x,), (copy,))
        return copy

    def column(
        self, x: Value, width: Dim, *, bias: bool, name: str = "", w: Value | None = None
    ) -> Value:
        """A column-parallel linear layer, its weight `w` where it is not the layer's own: the whole
        sequence is gathered in both passes."""
        inner = x.shape[-1]
        whole: Shape = (*WHOLE[:-1], inner)
        w = self.ops.weight((width, inner)) if w is None else w
        extra = (self.ops.weight((width,)),) if bias else ()
        gathered = self.mode.sequence_parallel
        full = (self.tape.value(whole, self.width, needs_grad=False),) if gathered else ()
        self.tape.record((x,), full)
        kept = self.kept(x)
        out = self.hidden((*WHOLE[:-1], width))

        def backward(run: Backward) -> None:
            if run.take(out) is None:
                return
            again = run.new(whole, self.width) if gathered else None
            grad = run.new(whole, self.width, "gradient of activations")
            self.give_weights(run, w, *extra)
            if again is not None:
                run.free(again)
                run.give(x, run.like(x))
            else:
                run.give(x, grad)

        saves = (kept,) if w.needs_grad else ()
        self.tape.record((x, w, *extra, *full), (out,), saves=saves, backward=backward)
        return self.adapted(x, out, w, name)

    def give_weights(self, run: Backward, w: Value, *biases: Value) -> None:
        """Gradients of a linear layer's parameters that train; a fused weight's is made nowhere."""
        fused = (w,) if self.mode.fuses_gradients else ()
        for value in (w, *biases):
            if value.needs_grad and value not in fused:
                run.give(value, run.like(value))

    def duplicated(self, x: Value, width: Dim, *, name: str = "") -> Value:
        """A linear layer that every tensor-parallel rank has whole, over its own tokens."""
        w = self.ops.weight((width, x.shape[-1]))
        kept = self.kept(x)
        out = self.hidden((*x.shape[:-1], width))

        def backward(run: Backward) -> None:
            if run.take(out) is not None:
                run.give(x, run.like(x))
                self.give_weights(run, w)

        saves = (kept,) if w.needs_grad else ()
        self.tape.record((x, w), (out,), saves=saves, backward=backward)
        return self.adapted(x, out, w, name)

    def adapted(self, x: Value, out: Value, w: Value, name: str) -> Value:
        """A layer's result with its adapter's, where the layer has one."""
        style = self.mode.types.adapter
        if style is None or style.targets.isdisjoint(ADAPTED.get(name, ())):
            return out
        with self.tape.within("adapter"):
            return low_rank(self.ops, x, out, out.shape[-1], w)

    def row(self, x: Value, width: Dim, *, bias: bool, name: str = "") -> Value:
        """A row-parallel linear layer: partial sums are reduced in place, or to sequence shards."""
        w = self.ops.weight(("H", width))
        extra = (self.ops.weight(("H",)),) if bias else ()
        kept = self.kept(x)
        partial = self.hidden(WHOLE)

        def backward(run: Backward) -> None:
            if run.take(partial) is None:
                return
            run.give(x, run.like(x))
            self.give_weights(run, w, *extra)

        saves = (kept,) if w.needs_grad else ()
        self.tape.record((x, w, *extra), (partial,), saves=saves, backward=backward)
        partial = self.adapted(x, partial, w, name)
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
            if self.style.latent:
                return latent_attention(self, x)
            if memory is None:
                start = self.here
                joint = self.column(x, "QKV", bias=self.style.qkv_bias, name="qkv")
                self.moved(start)
                q, k, v = self._heads(joint)
                keys: Dim = "C"
            else:
                q = self.column(x, "A", bias=self.style.qkv_bias)
                k, v = self._memory(memory)
                keys = "X"
            mixed = self.core(q, k, v, keys, "A")
            start = self.here
            out = self.row(mixed, "A", bias=self.style.out_bias, name="proj")
            self.moved(start)
            return out

    def core(self, q: Value, k: Value, v: Value, keys: Dim, width: Dim) -> Value:
        """Attention itself, by one kernel or by its steps; `width` is of all heads' values."""
        remade, start = self.remade("core_attn"), self.here
        if self.mode.attention == "eager":
            mixed = self._unfused(q, k, v, keys, width)
        else:
            mixed = self.ops.fused_attention(q, k, v, ("B", "S", width), ("B", "NH", "S"))
        remade.stop()
        remade.close()
        self.moved(start)
        return mixed

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

    def _unfused(self, q: Value, k: Value, v: Value, keys: Dim, width: Dim) -> Value:
        """Scores, fused mask and softmax, dropout, mixing."""
        square: Shape = ("B", "NH", "S", keys)
        scores = self.ops.matmul(q, k, square)
        likely = self.ops.softmax(scores, self.width)
        likely = self.ops.dropout(likely, float(self.mode.attention_dropout))
        rows: Shape = ("B", "NH", "S", "D") if width == "A" else ("B", "S", width)
        mixed = self.ops.matmul(likely, v, rows)
        return self.ops.copy(mixed, ("B", "S", width))

    # -- feed-forward ---------------------------------------------------------------------------

    def feed_forward(self, x: Value) -> Value:
        """Two linear layers and one kernel between them, which saves its input."""
        with self.tape.within("mlp"):
            style = self.style
            if style.experts:
                return mixture(self, x)
            joint: Dim = "F2" if style.gated_mlp else "F"
            inner = self.column(x, joint, bias=style.mlp_bias, name="fc1")
            return self.row(self.activate(inner, "F"), "F", bias=style.mlp_bias, name="fc2")

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
