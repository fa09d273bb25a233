"""The dimensions that shapes name, as columns over layouts: a model's, a batch's, a segment's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from sizewright_server.estimation.adapter_sizes import adapter_columns
from sizewright_server.estimation.architecture import Sizes
from sizewright_server.estimation.delta_dims import chunk_dims, delta_dims
from sizewright_server.estimation.indexer import chosen_dims
from sizewright_server.estimation.profile import Column
from sizewright_server.estimation.recurrent import recurrent_dims
from sizewright_server.estimation.techniques import Adapter


def model_dims(sizes: Sizes, tp: Column, ep: Column, expert_tp: Column) -> dict[str, Column]:
    """The dimensions that do not depend on the batch; one column entry per layout."""
    whole = _whole(sizes)
    # One table, whose rows are the columns.
    table = np.repeat(np.array(list(whole.values()), dtype=np.int64)[:, None], len(tp), axis=1)
    split = _split(sizes, tp, ep, expert_tp) | delta_dims(sizes, tp)
    return dict(zip(whole, table, strict=True)) | split


def _whole(sizes: Sizes) -> dict[str, int]:
    """Those that are the same on every rank."""
    return {
        "H": sizes.hidden,
        "D": sizes.head_dim,
        "R": sizes.rotary_dim,
        "RH": sizes.rotary_dim // 2,
        "RP": sizes.head_dim - sizes.rotary_dim,
        "V": sizes.vocab,
        "P": sizes.position_rows,
        "T": sizes.token_types,
        "E": sizes.embedding,
        "L": sizes.label_count,
        "one": 1,
        "N": sizes.experts,
        "XK": sizes.experts_per_token,
        "LAYERS": sizes.layers,
        "BUCKETS": sizes.buckets,
        "QR": sizes.query_rank,
        "LR": sizes.latent_rank,
        "LROT": sizes.latent_rotary,
        "LROT2": sizes.latent_rotary // 2,
        "IH": sizes.index_heads,
        "ID": sizes.index_head_dim,
        "IQ": sizes.index_heads * sizes.index_head_dim,
        "KVA": sizes.latent_rank + sizes.latent_rotary,
        "G": sizes.patches,
        "W": sizes.window,
        "EL": sizes.expert_latent or sizes.hidden,
        "SPECIAL": sizes.special_tokens,
        "PC": sizes.patch_values,
        "PIX": sizes.pixels,
    }


def _split(sizes: Sizes, tp: Column, ep: Column, expert_tp: Column) -> dict[str, Column]:
    """Those of which a rank has its share, and what is put together of them.

    Tensor parallelism splits heads and feed-forward; a rank keeps at least one key/value head.
    Expert parallelism splits the experts, `expert_tp` each one of them.
    """
    heads = sizes.heads // tp
    kv_heads = np.maximum(sizes.kv_heads // tp, 1)
    return {
        "A2": 2 * heads * sizes.head_dim,
        "A": heads * sizes.head_dim,
        "K": kv_heads * sizes.head_dim,
        "NH": heads,
        "NK": kv_heads,
        "F": sizes.ffn // tp,
        "F2": 2 * sizes.ffn // tp,
        "FX": sizes.expert_ffn // expert_tp,
        "FX2": 2 * sizes.expert_ffn // expert_tp,
        "FS": sizes.shared_ffn // tp,
        "FS2": 2 * sizes.shared_ffn // tp,
        "QW": heads * (sizes.latent_plain + sizes.latent_rotary),
        "KP": heads * sizes.latent_plain,
        "VA": heads * sizes.value_dim,
        "KVB": heads * (sizes.latent_plain + sizes.value_dim),
        "QKV": (heads + 2 * kv_heads) * sizes.head_dim,
        "KV2": 2 * kv_heads * sizes.head_dim,
        "VL": np.full_like(tp, sizes.vocab),
        "NL": sizes.experts // ep,
    }


@lru_cache(maxsize=4096)
def _on_rank(sizes: Sizes, tp: int, ep: int, expert_tp: int) -> tuple[tuple[str, ...], Column]:
    """The dimensions of `model_dims` by name, on a rank of one layout."""
    made = model_dims(sizes, *(np.array([size], dtype=np.int64) for size in (tp, ep, expert_tp)))
    values = np.concatenate(tuple(made.values()))
    values.setflags(write=False)
    return tuple(made), values


#: A decoder's own tokens, and the encoder's, which it attends over.
DECODER_TOKENS = {"S": "TARGET", "C": "TARGET_CACHED", "KEPT": "TARGET", "X": "S"}


class Dims:
    """The dimensions of every segment in one run: the batch's, and its own sizes'."""

    def __init__(
        self,
        tp: Column,
        batch: Mapping[str, int | Column],
        ep: Column | None = None,
        expert_tp: Column | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        self._tp = tp
        self._adapter = adapter
        self._expert_tp = tp if expert_tp is None else expert_tp
        self._ep = np.ones_like(tp) if ep is None else ep
        columns = np.empty((len(batch), len(tp)), dtype=np.int64)
        for row, value in enumerate(batch.values()):
            columns[row] = value
        self._batch: dict[str, Column] = dict(zip(batch, columns, strict=True))
        split = (self._tp.tolist(), self._ep.tolist(), self._expert_tp.tolist())
        self._splits = list(zip(*split, strict=True))
        self._made: dict[Sizes, dict[str, Column]] = {}

    def _of_model(self, sizes: Sizes) -> dict[str, Column]:
        """The dimensions that do not depend on the batch, as columns of one table."""
        on_ranks = [_on_rank(sizes, *split) for split in self._splits]
        table = np.array([values for _, values in on_ranks]).T
        return dict(zip(on_ranks[0][0], table, strict=True))

    def of(self, sizes: Sizes) -> dict[str, Column]:
        """Every dimension by name."""
        if sizes not in self._made:
            made = self._of_model(sizes) | self._batch
            if sizes.stack == "decoder":
                made |= {n: made[own] for n, own in DECODER_TOKENS.items() if own in self._batch}
                if sizes.patches:
                    made["X"] = np.full_like(self._tp, sizes.patches)
            elif sizes.patches:
                tokens = np.full_like(self._tp, sizes.patches + sizes.special_tokens)
                made |= dict.fromkeys(("S", "C", "KEPT"), tokens)
            if sizes.buckets and "S" in made:
                made["SPAN"] = np.minimum(2 * made["S"], sizes.buckets)
            if sizes.recurrent.inner and "S" in made:
                made |= recurrent_dims(sizes.recurrent, made["S"], made["B"])
            if "C" in made:
                made |= {"C1": made["C"] + 1, "S1": made["S"] + 1}
            if sizes.index_keys:
                made |= chosen_dims(made, sizes.index_keys)
            if sizes.delta_heads and "S" in made:
                made |= chunk_dims(sizes, made)
            made |= adapter_columns(self._adapter, made)
            self._made[sizes] = made
        return self._made[sizes]
