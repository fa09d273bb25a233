"""Attention layers: projections, positions, cache and the kernel between."""

from __future__ import annotations

from dataclasses import replace

from sizewright_server.estimation.adapters import behind_prefix, has_prefix
from sizewright_server.estimation.architecture import Style
from sizewright_server.estimation.disentangled import disentangled_attention
from sizewright_server.estimation.feedforward import split
from sizewright_server.estimation.gated_prompts import answer_prompt, has_gated_prompt
from sizewright_server.estimation.indexer import CHOSEN, INT32, chosen_keys, sparse_mask
from sizewright_server.estimation.kernels import Scores, attend, keeps_cache, runs_eager
from sizewright_server.estimation.latent import compressed, expanded, queries, turn
from sizewright_server.estimation.mode import Mode
from sizewright_server.estimation.norms import norm, plain_rms_norm
from sizewright_server.estimation.ops import Ops
from sizewright_server.estimation.relative_bias import cross_bias, own_bias
from sizewright_server.estimation.rotary import rotate_both
from sizewright_server.estimation.tape import Dim, Value


class Attention:
    """The attention layers of one block; `cached` are the key/value copies that stay."""

    def __init__(self, ops: Ops, style: Style, mode: Mode) -> None:
        self.ops, self.style, self.mode = ops, style, mode
        self.tape = ops.tape
        self.cached: list[Value] = []
        #: Attention probabilities that the block's frame holds until it returns.
        self.held: list[Value] = []
        #: Names that die when the attention returns.
        self.names: list[Value] = []
        #: What the sublayer's last projection reads: blocks that norm the sum hold it until then.
        self.mixed: list[Value] = []
        #: Scales what attention gives, where the family has an output gate.
        self.gate: Value | None = None

    def own(self, x: Value) -> Value:
        """Attention of a stack over itself."""
        style = self.style
        if style.latent:
            return self._latent(x)
        if style.disentangled != "none":
            return self._disentangled(x)
        with self.tape.within("attention"):
            q, k, v = self._project(x)
            q, k = self._position(q, k)
            if style.causal:
                # A cache made for the keys takes the values in their type.
                k, v = self._cache(k), self._cache(v, itemsize=k.itemsize)
            if has_prefix(self.mode.types):
                (k, kept_k), (v, kept_v) = behind_prefix(self.ops, k), behind_prefix(self.ops, v)
                self.cached += [kept_k, kept_v]
            return self._mix(x, q, k, v, self._scores())

    def across(self, x: Value, memory: Value) -> Value:
        """Attention of a decoder over the encoder's states."""
        with self.tape.within("attention"):
            q = self._linear("q", x, "A")
            if self.style.scale_query_first:
                q = self.ops.scale(q)
            k, v = (
                self._linear("k", memory, "A", bias=self.style.qkv_bias and self.style.key_bias),
                self._linear("v", memory, "A"),
            )
            k, v = self._cache(k, "X"), self._cache(v, "X")
            bias = cross_bias(self.ops, self.style, self.mode)
            scores = Scores("X", masked=self.mode.padded, causal=False, bias=bias)
            return self._mix(x, q, k, v, scores)

    def _disentangled(self, x: Value) -> Value:
        """Attention over content and relative positions."""
        with self.tape.within("attention"):
            mixed = disentangled_attention(self.ops, self.style, self.mode, x)
            out = self._linear("o", mixed, "H", bias=self.style.out_bias, inner="A")
            self.held.append(mixed)
            return self.ops.dropout(out, float(self.mode.hidden_dropout))

    def _latent(self, x: Value) -> Value:
        """Multi-head latent attention: the cache keeps what keys and values are made of."""
        ops, style, mode = self.ops, self.style, self.mode
        with self.tape.within("attention"):
            q, low_queries = queries(ops, style, x)
            joint, low, turning = compressed(ops, style, x)
            q_turned = turn(ops, style, mode, q, "NH")
            k_turned = turn(ops, style, mode, turning, 1)
            low, k_turned = self._cache(low), self._cache(self.tape.view(k_turned, turning.shape))
            query = ops.concatenate((q, q_turned), ("B", "S", "QW"))
            key, values = expanded(ops, low, k_turned, "C")
            scores = replace(self._scores(), mixed="VA")
            self.names += [q, joint, q_turned, k_turned]
            if style.indexer != "none":
                self._choose_keys(x, low_queries)
                self.names += [low_queries, low]
            return self._mix(x, query, key, values, scores)

    def _choose_keys(self, x: Value, low_queries: Value) -> None:
        """Sparse attention: the keys that the indexer, or one of a block before, has chosen."""
        if self.style.indexer == "shared":
            with self.tape.within("indexer"):
                chosen = self.tape.external(CHOSEN, INT32)
        else:
            chosen = chosen_keys(
                self.ops, self.style, self.mode, x, low_queries, lambda keys: self._cache(keys)
            )
        if self.style.hands_keys and self.mode.checkpointed:
            self.tape.storages[chosen.storage].handed_on = True
        self.names += [chosen, *sparse_mask(self.ops, self.mode, chosen)]

    @property
    def _key_bias(self) -> bool:
        return self.style.qkv_bias and self.style.key_bias

    def _scores(self) -> Scores:
        mode, style = self.mode, self.style
        masked = mode.padded or (style.sliding and mode.windowed and style.causal)
        # Keys that are more than the queries need a mask, where a prefix is before them.
        masked = masked or style.always_masked or has_prefix(mode.types)
        masked = masked or mode.cache == "static"
        # A static cache's first pass has no mask to hide its empty rows: they are cut off.
        cut = mode.cache == "new" and not (masked or runs_eager(style, mode))
        cut = cut or (mode.cache == "new" and self._cuts_window)
        return Scores(
            "S" if cut else "C",
            masked=masked,
            causal=style.causal,
            bias=own_bias(self.ops, style, mode),
        )

    def _mix(self, x: Value, q: Value, k: Value, v: Value, scores: Scores) -> Value:
        ops, style = self.ops, self.style
        mixed, weights = attend(ops, style, self.mode, q, k, v, scores)
        if has_gated_prompt(self.mode.types) and self.mode.prompted:
            mixed = answer_prompt(ops, q, mixed)
        if self.gate is not None:
            mixed = ops.multiply(mixed, ops.unary(self.gate, saves="output"))
            self.names.append(self.gate)
        self.mixed = [mixed]
        inner: Dim = "VA" if style.latent else "A"
        # BERT's output projection is a module of its own, called when the queries are gone.
        projected = () if style.order == "post" else (q, k, v)
        if not projected:
            self.tape.hold(q, k, v)
        out = self._linear(style.out_name, mixed, "H", bias=style.out_bias, inner=inner)
        self.tape.hold(x, *projected, *self.names)
        if weights is not None:
            self.held.append(weights)
        if not style.attention_out_dropout:
            return out
        return ops.dropout(out, float(self.mode.hidden_dropout))

    def _linear(
        self, name: str, x: Value, width: Dim, *, bias: bool | None = None, inner: Dim = "H"
    ) -> Value:
        with_bias = self.style.qkv_bias if bias is None else bias
        w = self.ops.weight((width, inner))
        shift = self.ops.weight((width,)) if with_bias else None
        return self.ops.linear(x, width, w, shift, name=name)

    def _project(self, x: Value) -> tuple[Value, Value, Value]:
        ops, kind = self.ops, self.style.qkv
        if kind == "separate":
            early = self.style.qk_norm_early
            q = self._gated_queries(x) if self.style.output_gate else self._linear("q", x, "A")
            q = self._qk_norm(q, "NH") if early else q
            k = self._linear("k", x, "K", bias=self._key_bias)
            k = self._qk_norm(k, "NK") if early else k
            return q, k, self._linear("v", x, "K")
        joint = self._linear("qkv", x, "QKV")
        if kind == "split":
            q, k, v = split(self.tape, joint, ("A", "K", "K"))
        else:
            q, k, v = (ops.slice(joint, ("B", "S", width)) for width in ("A", "K", "K"))
        self.names.append(joint)
        if self.style.repeats_first and self.mode.grouped_queries:
            k, v = (ops.reduce_copy(x, ("B", "S", "A")) for x in (k, v))
            return ops.copy(q), k, v
        return q, k, v

    def _gated_queries(self, x: Value) -> Value:
        """Queries, and beside every head a gate of what attention will give."""
        both = self._linear("q", x, "A2")
        q, gate = split(self.tape, both, ("A", "A"))
        self.gate = self.ops.copy(gate)
        return q

    def _position(self, q: Value, k: Value) -> tuple[Value, Value]:
        style, mode = self.style, self.mode
        keys = "NH" if style.repeats_first else "NK"
        if style.qk_norm not in ("none", "plain") and not style.qk_norm_early:
            q, k = self._qk_norm(q, "NH"), self._qk_norm(k, "NK")
        raw = (q, k)
        if style.scale_query_first:
            q = self.ops.scale(q)
        if style.positions == "rope":
            width = "D" if style.rotary == "full" else "R"
            cos, sin = (
                self.tape.external(("one", "S", width), mode.types.weight) for _ in range(2)
            )
            q, k = rotate_both(self.ops, style, (q, "NH"), (k, keys), cos, sin)
            if style.names_rotary_parts:
                # The attention itself has a name for the part of each head that is not turned.
                self.names += [*raw]
            if style.qk_norm == "plain":
                q, k = plain_rms_norm(self.ops, q), plain_rms_norm(self.ops, k)
        self.tape.hold(*raw)
        return q, k

    def _qk_norm(self, x: Value, heads: str) -> Value:
        if self.style.qk_norm == "full":
            return norm(self.ops, self.style, x, (x.shape[-1],))
        per_head = self.tape.view(x, (*x.shape[:-1], heads, "D"))
        width = ("D",) if self.style.qk_norm == "head" else (heads, "D")
        return self.tape.view(norm(self.ops, self.style, per_head, width), x.shape)

    def _cache(self, x: Value, keys: str = "C", *, itemsize: int = 0) -> Value:
        """Keys or values as the cache hands them back.

        A dynamic cache is `torch.cat([cache, new])`, the copy that stays; a static one is made at
        the first call and written to in place.
        """
        kind, width = self.mode.cache, x.shape[-1]
        if keeps_cache(self.style, self.mode):
            return self._cache_in_training(x, keys, itemsize or x.itemsize)
        if kind == "none":
            return x
        with self.tape.within("kv-cache"):
            if kind == "dynamic":
                self.cached.append(self.ops.copy(x, ("B", keys, width)))
                return self.cached[-1]
            cut = kind == "new" and self._cuts_window
            shape = ("B", "W" if cut else "M" if keys == "C" else keys, width)
            if kind == "static":
                kept = self.tape.external(shape, x.itemsize)
            else:
                kept = self.tape.value(shape, x.itemsize, needs_grad=False)
                self.cached.append(kept)
            self.tape.record((x,), (kept,))
            # A prompt longer than the window is read as it is; its last tokens stay.
            return x if cut else kept

    @property
    def _cuts_window(self) -> bool:
        """A static cache of a layer whose window is shorter than the prompt."""
        return self.style.sliding and self.mode.windowed and self.style.causal

    def _cache_in_training(self, x: Value, keys: str, itemsize: int) -> Value:
        """A cache nobody reads again: the model's output has it until the step is over."""
        with self.tape.within("kv-cache"):
            if x.itemsize == itemsize:
                kept = self.ops.copy(x, ("B", keys, x.shape[-1]))
            else:
                kept = self.ops.cast(x, itemsize)
        self.tape.storages[kept.storage].stays = self.mode.loop != "trainer"
        return kept
