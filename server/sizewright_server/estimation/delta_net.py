"""The gated delta net (Qwen3-Next, Qwen3.5) as transformers 5.23 runs it in place of attention.

A projection to queries, keys, values and an output gate; a causal convolution over the first
three; the gated delta rule; a norm of every head, scaled by the gate; a projection back.
Dimensions: those of `delta_shapes.py`; LK and LV the widths of all key and value heads, LQKV what
the convolution sees, LQKVZ that with the gate, LBA the two gates of every head. Under tensor
parallelism rows of the projections' weights are split (names ending in T) and their results
gathered (`colwise_gather_output`), so that what lies between is whole on every rank; names ending
in P are a rank's part before it is gathered, 0 where there is one rank.
"""

from __future__ import annotations

from collections.abc import Sequence

from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.backward import Backward
from sizewright_server.estimation.convolution import causal_convolution, without_padding
from sizewright_server.estimation.delta_kernel import fused_rule
from sizewright_server.estimation.delta_rule import eager_rule
from sizewright_server.estimation.delta_shapes import Heads
from sizewright_server.estimation.delta_step import convolved_once, rule_once
from sizewright_server.estimation.feedforward import split
from sizewright_server.estimation.kernels import keeps_cache
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.norms import rms_norm
from sizewright_server.estimation.ops import FP32, Ops
from sizewright_server.estimation.tape import Value


def delta_net(ops: Ops, style: Style, mode: Mode, x: Value, cached: list[Value]) -> Value:
    """The layer: hidden states in, hidden states of the same shape out; `cached` takes what it
    keeps for later calls."""
    return _DeltaNet(ops, style, mode, cached).mixed(x)


class _DeltaNet:
    """One gated delta net on its tape."""

    def __init__(self, ops: Ops, style: Style, mode: Mode, cached: list[Value]) -> None:
        self.ops, self.style, self.mode = ops, style, mode
        self.tape = ops.tape
        self.cached = cached
        #: A token that follows a cached text, and a text whose last state is to be cached.
        self.steps = mode.one_query and mode.cache != "none"
        self.caches = keeps_cache(style, mode) or (mode.cache != "none" and not mode.one_query)
        self.fused = style.fused_recurrence
        #: What has a name until the convolution is done, and until the layer returns.
        self.names: list[Value] = []
        self.projections: list[Value] = []
        self.states: list[tuple[Value, Sequence[int]]] = []

    def mixed(self, x: Value) -> Value:
        """The layer: hidden states in, hidden states of the same shape out."""
        unmasked, x = x, without_padding(self.ops, self.mode, x)
        joint, gate, beta, step = self._projected(x)
        if self.caches:
            # The latest tokens under the convolution.
            self._keep(Value(joint.storage, ("B", "CW", "LQKV"), joint.itemsize, False))
        convolved = self._convolved(joint)
        self.tape.hold(*self.names)
        heads = self._heads(convolved, beta, step)
        rule = self._rule(heads)
        for state, behind in self.states:
            self._keep(state, behind)
        out = self._gated_norm(rule, gate)
        self.tape.hold(rule)
        made = self._linear(out, "H", "HP", ("HT", "LV"), "mixer-out")
        self.tape.hold(unmasked, x, gate, convolved, heads.beta, heads.decay, beta, step)
        self.tape.hold(*self.projections)
        return made

    def _convolved(self, joint: Value) -> Value:
        if self.steps:
            return convolved_once(self.ops, joint, fused=self.fused)
        return causal_convolution(
            self.ops, joint, "LQKV", "CW", padded="SCW", bias=False, fused=self.fused
        )

    def _projected(self, x: Value) -> tuple[Value, Value, Value, Value]:
        """What the convolution reads, the output gate, and the two gates of every head."""
        ops = self.ops
        if self.style.mixer == "delta-net":
            joint = self._linear(x, "LQKV", "LQKVP", ("LQKVT", "H"), "in-qkv")
            gate = self._linear(x, "LV", "LVP", ("LVT", "H"), "in-z")
            beta = self._linear(x, "LH", "LHP", ("LHT", "H"), "in-b")
            return joint, gate, beta, self._linear(x, "LH", "LHP", ("LHT", "H"), "in-a")
        whole = self._linear(x, "LQKVZ", "LQKVZP", ("LQKVZT", "H"), "in-qkvz")
        both = self._linear(x, "LBA", "LBAP", ("LBAT", "H"), "in-ba")
        q, k, v, gate = split(self.tape, whole, ("LK", "LK", "LV", "LV"))
        beta, step = split(self.tape, both, ("LH", "LH"))
        if self.mode.grouped_deltas:
            # Several heads of a group are read one after another; one is where it was.
            gate, beta, step = (ops.copy(part) for part in (gate, beta, step))
        q, k, v = (ops.copy(part) for part in (q, k, v))
        joint = ops.concatenate((q, k, v), ("B", "S", "LQKV"))
        # They have names until the convolved ones take these.
        self.names += [q, k, v]
        self.projections = [whole, both]
        return joint, gate, beta, step

    def _heads(self, convolved: Value, beta: Value, step: Value) -> Heads:
        """Queries, keys and values of every head; how much is written, and how much fades."""
        ops, tape = self.ops, self.tape
        q, k, v = split(tape, convolved, ("LK", "LK", "LV"))
        written = ops.unary(beta, saves="output")
        rate = ops.scale(ops.unary(ops.cast(ops.weight(("LH",)), FP32), saves="output"))
        wide = ops.cast(step, FP32)
        faded = ops.unary(ops.add(wide, ops.weight(("LH",))), saves="input")
        decay = ops.multiply(faded, rate)
        return Heads(
            tape.view(q, ("B", "S", "LG", "LD")),
            tape.view(k, ("B", "S", "LG", "LD")),
            tape.view(v, ("B", "S", "LH", "LE")),
            decay,
            written,
        )

    def _rule(self, heads: Heads) -> Value:
        grouped = self.mode.grouped_deltas
        if self.steps:
            out, last = rule_once(self.ops, heads, fused=self.fused)
            self.projections.append(last)
            return out
        cached = self._take_state if self.caches else None
        if self.fused:
            return fused_rule(self.ops, heads, grouped=grouped, cached=cached)
        # Heads taken out of tokens keep their order where nothing casts or pads them.
        strided = heads.q.itemsize == FP32 and not self.mode.ragged_chunks
        return eager_rule(self.ops, heads, grouped=grouped, strided=strided, cached=cached)

    def _take_state(self, state: Value, behind: Sequence[int]) -> None:
        """The state behind the last token, which has a name until the layer returns."""
        self.states.append((state, behind))
        self.projections.append(state)

    def _keep(self, x: Value, behind: Sequence[int] = ()) -> None:
        """A copy for later calls.

        In training nobody reads it: the model's output has it until the step is over, and with it
        what the graph behind it saved, through which no gradient runs.
        """
        tape = self.tape
        with tape.within("kv-cache"):
            kept = tape.value(x.shape, x.itemsize, needs_grad=False)
            tape.record((x,), (kept,))
        if not self.mode.training:
            self.cached.append(kept)
            return
        for storage in (kept.storage, *behind):
            tape.storages[storage].stays = self.mode.loop != "trainer"

    def _gated_norm(self, x: Value, gate: Value) -> Value:
        """Root-mean-square norm of every head; its product with the activated gate is in fp32."""
        ops = self.ops
        normed = rms_norm(ops, x, ("LE",), "rms")
        wide = ops.cast(self.tape.view(gate, x.shape), FP32)
        scratch = 5 if ops.types.traced else 0
        scaled = ops.multiply(normed, ops.unary(wide, saves="input", scratch=scratch))
        return self.tape.view(ops.cast(scaled, x.itemsize), ("B", "S", "LV"))

    def _linear(self, x: Value, width: str, part: str, weight: tuple[str, str], name: str) -> Value:
        """A linear layer whose result is gathered from the ranks' parts."""
        ops, tape = self.ops, self.tape
        out = ops.linear(x, width, ops.weight(weight), name=name)
        gathered = Value(out.storage, out.shape, out.itemsize, out.needs_grad)
        own = tape.value(("B", "S", part), out.itemsize, needs_grad=False)

        def backward(run: Backward) -> None:
            grad = run.take(gathered)
            if grad is not None:
                run.new(own.shape, own.itemsize)
                run.give(out, grad)

        tape.record((out,), (gathered, own), backward=backward)
        return gathered
