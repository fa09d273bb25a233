"""Lowers transformer blocks, embeddings and heads to tapes, operator by operator.

The operators and their order are those of the modelling code of transformers 5.23 in eager mode.
Dimension names: B samples, S tokens, H hidden, A query width, K key/value width, NH query heads,
NK key/value heads, D head dim, R rotary dim, F feed-forward width, V vocabulary, P position rows,
T token types, E embedding width, L labels, C cached tokens (S and those before). Under tensor
parallelism A, K, NH, NK, F (and V where the head is split) are one rank's share.
"""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.ops import FP32, Ops, Types
from sizewright_server.estimation.tape import Tape, Value


@dataclass(frozen=True, slots=True)
class Mode:
    """The structural settings of a run: with a `Style` they decide the tape, numbers do not."""

    types: Types
    training: bool
    attention: str
    padded: bool = False
    cache: bool = False
    grouped_queries: bool = False
    attention_dropout: bool = False
    hidden_dropout: bool = False
    embedding_dropout: bool = False
    tensor_parallel: bool = False
    trainable: bool = True


class Block:
    """One transformer block on its tape."""

    def __init__(self, style: Style, mode: Mode) -> None:
        self.style = style
        self.mode = mode
        self.tape = Tape()
        self.ops = Ops(self.tape, mode.types, training=mode.training)
        self.cached: list[Value] = []
        self.stream = residual_itemsize(style, mode)

    def lower(self) -> Tape:
        """The whole block: hidden states in, hidden states out."""
        x = self.tape.input(("B", "S", "H"), self.stream, needs_grad=self.mode.training)
        out = getattr(self, f"_{self.style.order.replace('-', '_')}")(x)
        self.tape.hold(x)
        self.tape.finish(out, *self.cached)
        return self.tape

    # -- wiring ---------------------------------------------------------------------------------

    def _pre(self, x: Value) -> Value:
        normed = self._norm(x, "norm")
        x = self._residual(x, self._attention(normed))
        normed = self._norm(x, "norm")
        return self._residual(x, self._mlp(normed))

    def _post(self, x: Value) -> Value:
        attended = self._attention(x)
        with self.tape.within("norm"):
            x = norm(self.ops, self.style, self._residual(attended, x), ("H",))
        out = self._mlp(x)
        with self.tape.within("norm"):
            return norm(self.ops, self.style, self._residual(out, x), ("H",))

    def _parallel(self, x: Value) -> Value:
        normed = self._norm(x, "norm")
        attended = self._attention(normed)
        out = self._mlp(normed)
        return self._residual(self._residual(attended, out), x)

    def _parallel_two_norms(self, x: Value) -> Value:
        attended = self._attention(self._norm(x, "norm"))
        out = self._mlp(self._norm(x, "norm"))
        return self._residual(self._residual(out, attended), x)

    def _sandwich(self, x: Value) -> Value:
        attended = self._norm(self._attention(self._norm(x, "norm")), "norm")
        x = self._residual(x, attended)
        out = self._norm(self._mlp(self._norm(x, "norm")), "norm")
        return self._residual(x, out)

    def _inner_post(self, x: Value) -> Value:
        x = self._residual(x, self._norm(self._attention(x), "norm"))
        return self._residual(x, self._norm(self._mlp(x), "norm"))

    def _norm(self, x: Value, part: str) -> Value:
        with self.tape.within(part):
            return norm(self.ops, self.style, x, ("H",))

    def _residual(self, x: Value, y: Value) -> Value:
        with self.tape.within("residual"):
            if self.style.residual_scale:
                y = self.ops.scale(y)
            return self.ops.add(x, y)

    # -- attention ------------------------------------------------------------------------------

    def _attention(self, x: Value) -> Value:
        with self.tape.within("attention"):
            q, k, v = self._project(x)
            q, k = self._position(q, k)
            if self.mode.cache:
                k, v = self._cache(k), self._cache(v)
            mixed = self._mix(q, k, v)
            w = self.ops.weight(("H", "A"))
            b = self.ops.weight(("H",)) if self.style.out_bias else None
            out = self.ops.linear(mixed, "H", w, b)
            self.tape.hold(x, q, k, v)
            return self.ops.dropout(out, float(self.mode.hidden_dropout))

    def _project(self, x: Value) -> tuple[Value, Value, Value]:
        style, ops = self.style, self.ops
        if style.fused_qkv:
            w = ops.weight(("QKV", "H"))
            b = ops.weight(("QKV",)) if style.qkv_bias else None
            joint = ops.linear(x, "QKV", w, b)
            return split(self.tape, joint, ("A", "K", "K"))
        made = []
        for width in ("A", "K", "K"):
            w = ops.weight((width, "H"))
            b = ops.weight((width,)) if style.qkv_bias else None
            made.append(ops.linear(x, width, w, b))
        return made[0], made[1], made[2]

    def _position(self, q: Value, k: Value) -> tuple[Value, Value]:
        style, raw = self.style, (q, k)
        if style.qk_norm != "none":
            q, k = (self._qk_norm(value, heads) for value, heads in ((q, "NH"), (k, "NK")))
        if style.scale_query_first:
            q = self.ops.scale(q)
        if style.positions == "rope":
            width = "D" if style.rotary == "full" else "R"
            cos, sin = (
                self.tape.external(("one", "S", width), self.mode.types.compute) for _ in range(2)
            )
            q, k = rotate(self, q, "NH", cos, sin), rotate(self, k, "NK", cos, sin)
        self.tape.hold(*raw)
        return q, k

    def _qk_norm(self, x: Value, heads: str) -> Value:
        if self.style.qk_norm == "full":
            return norm(self.ops, self.style, x, (x.shape[-1],))
        per_head = self.tape.view(x, ("B", "S", heads, "D"))
        normed = norm(self.ops, self.style, per_head, ("D",))
        return self.tape.view(normed, x.shape)

    def _cache(self, x: Value) -> Value:
        """`torch.cat([cache, new])` of a dynamic cache: the copy that stays."""
        with self.tape.within("kv-cache"):
            self.cached.append(self.ops.copy(x, ("B", "C", "K")))
            return self.cached[-1]

    def _mix(self, q: Value, k: Value, v: Value) -> Value:
        if self.mode.attention == "eager":
            return eager_attention(self, q, k, v)
        mask: tuple[Value, ...] = ()
        lse = ("B", "NH", "S")
        if self.mode.padded:
            # The boolean mask of the model becomes an additive one in every call, and is saved.
            with self.tape.within("attention mask"):
                mask = (self.tape.value(("B", 1, "S", "C"), q.itemsize, needs_grad=False),)
            self.tape.record((), mask)
            if self.mode.grouped_queries:
                k, v = (self.ops.copy(value, ("B", "C", "A")) for value in (k, v))
        return self.ops.fused_attention(q, k, v, ("B", "S", "A"), lse, *mask)

    # -- feed-forward ---------------------------------------------------------------------------

    def _mlp(self, x: Value) -> Value:
        with self.tape.within("mlp"):
            style, ops = self.style, self.ops
            inner = self._gated(x) if style.gated_mlp else self._plain(x)
            w = ops.weight(("H", "F"))
            b = ops.weight(("H",)) if style.mlp_bias else None
            out = ops.linear(inner, "H", w, b)
            self.tape.hold(x)
            return ops.dropout(out, float(self.mode.hidden_dropout))

    def _gated(self, x: Value) -> Value:
        ops = self.ops
        if self.style.fused_gate_up:
            joint = ops.linear(x, "F2", ops.weight(("F2", "H")))
            gate, up, _ = split(self.tape, joint, ("F", "F", 0))
            return ops.multiply(up, activate(ops, self.style, gate))
        gate = activate(ops, self.style, self._up(x))
        return ops.multiply(gate, self._up(x))

    def _plain(self, x: Value) -> Value:
        return activate(self.ops, self.style, self._up(x))

    def _up(self, x: Value) -> Value:
        bias = self.ops.weight(("F",)) if self.style.mlp_bias else None
        return self.ops.linear(x, "F", self.ops.weight(("F", "H")), bias)


def residual_itemsize(style: Style, mode: Mode) -> int:
    """Bytes per element of the residual stream: under autocast it stays in the weights' type."""
    return mode.types.weight if mode.types.autocast else mode.types.compute


def split(tape: Tape, joint: Value, widths: tuple[str | int, ...]) -> tuple[Value, Value, Value]:
    """`split`/`chunk`: views of one storage; backward concatenates the gradients into a new one."""
    parts = []
    for width in widths:
        part = Value(joint.storage, (*joint.shape[:-1], width), joint.itemsize, joint.needs_grad)
        parts.append(part)

    def backward(run):  # type: ignore[no-untyped-def]
        taken = [run.take(part) for part in parts]
        if any(grad is not None for grad in taken):
            run.give(joint, run.like(joint))

    tape.record((joint,), tuple(parts), backward=backward)
    return parts[0], parts[1], parts[2]


def norm(ops: Ops, style: Style, x: Value, width: tuple[str | int, ...]) -> Value:
    """The family's norm over the last dimension."""
    if style.norm == "layer":
        w = ops.weight(width)
        return ops.layer_norm(x, w, ops.weight(width) if style.norm_bias else None)
    if style.norm == "layer-plain":
        return ops.layer_norm(x, None, None)
    return rms_norm(ops, x, width, offset=style.norm == "rms-offset")


def rms_norm(ops: Ops, x: Value, width: tuple[str | int, ...], *, offset: bool) -> Value:
    """Root-mean-square norm as written in Python: fp32 copy, square, mean, scale, cast, weight.

    `offset` is Gemma's form, which multiplies by (1 + weight) in fp32 and casts last.
    """
    kind = x.itemsize
    wide = ops.cast(x, FP32)
    rows = (*x.shape[:-1], 1)
    variance = ops.mean(ops.power(wide), rows)
    rate = ops.unary(ops.scale(variance), saves="output")
    scaled = ops.multiply(wide, rate)
    w = ops.weight(width)
    if offset:
        ops.tape.hold(x)
        return ops.cast(ops.multiply(scaled, ops.scale(ops.cast(w, FP32))), kind)
    narrow = ops.cast(scaled, kind)
    ops.tape.hold(x)
    return ops.multiply(narrow, w)


def rotate(block: Block, x: Value, heads: str, cos: Value, sin: Value) -> Value:
    """Rotary embedding: x * cos + rotate_half(x) * sin, on the whole head or a slice of it."""
    ops, tape, style = block.ops, block.tape, block.style
    whole = ("B", "S", heads, "D")
    part = whole if style.rotary == "full" else ("B", "S", heads, "R")
    heads_of = tape.view(x, whole)
    turned = heads_of if style.rotary == "full" else ops.slice(heads_of, part)
    direct = ops.multiply(turned, cos)
    halves = (*part[:-1], "RH")
    first, second = ops.slice(turned, halves), ops.slice(turned, halves)
    mirrored = ops.concatenate((ops.unary(second, saves="none"), first), part)
    out = ops.add(direct, ops.multiply(mirrored, sin))
    if style.rotary != "full":
        out = ops.concatenate((out, ops.slice(heads_of, (*part[:-1], "RP"))), whole)
    return tape.view(out, x.shape)


def activate(ops: Ops, style: Style, x: Value) -> Value:
    """The activation, as one kernel or as the Python expression the family uses."""
    if style.activation == "gelu-new":
        half = ops.scale(x)
        cube = ops.power(x)
        inner = ops.scale(ops.add(x, ops.scale(cube)))
        tanh = ops.scale(ops.unary(inner, saves="output"))
        return ops.multiply(half, tanh)
    if style.activation == "quick-gelu":
        return ops.multiply(x, ops.unary(ops.scale(x), saves="output"))
    if style.activation == "relu-squared":
        return ops.power(ops.unary(x, saves="output"))
    return ops.unary(x, saves=style.activation_saves)


def eager_attention(block: Block, q: Value, k: Value, v: Value) -> Value:
    """Scores, softmax and mixing as separate operators over a (B, NH, S, C) matrix."""
    ops, tape, mode = block.ops, block.tape, block.mode
    square = ("B", "NH", "S", "C")
    if mode.grouped_queries:
        k, v = (ops.copy(value, ("B", "C", "A")) for value in (k, v))
    scores = ops.scale(ops.matmul(q, k, square))
    if block.style.causal or mode.padded:
        mask = tape.external(("B" if mode.padded else 1, 1, "S", "C"), mode.types.compute)
        scores = ops.add(scores, mask)
    kind = FP32 if block.style.softmax_fp32 or mode.types.autocast else scores.itemsize
    weights = ops.cast(ops.softmax(scores, kind), q.itemsize)
    tape.hold(scores)
    weights = ops.dropout(weights, float(mode.attention_dropout))
    mixed = ops.matmul(weights, v, ("B", "NH", "S", "D"))
    return ops.copy(mixed, ("B", "S", "A"))
