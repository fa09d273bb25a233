"""Bytes of key/value caches and recurrent states on one rank, as engines lay them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sizewright_server.estimation.serving.model import LayerCache

#: Bytes of a cached element, and of scales per token and head (K and V each) beside it.
CACHE_TYPES: dict[str, tuple[float, float]] = {
    "fp32": (4, 0),
    "bf16": (2, 0),
    "fp16": (2, 0),
    "fp8": (1, 0),
    "int8": (1, 4),
    "int4": (0.5, 4),
    "nvfp4": (0.5625, 0),
}
#: A latent with its rotary part in DeepSeek's fp8 layout (656 B for 576 elements).
LATENT_FP8 = 656 / 576


@dataclass(frozen=True, slots=True)
class CacheFormat:
    """How caches are stored: their type, the model's type for states, and the ranks that share.

    `latent_multiple` rounds a latent's width up, as some kernels do.
    """

    dtype: str
    state_itemsize: int = 2
    tp: int = 1
    latent_multiple: int = 1

    def token_bytes(self, cache: LayerCache) -> float:
        """Bytes one token takes in one layer on one rank; 0 for states."""
        itemsize, scale = CACHE_TYPES[self.dtype]
        if cache.kind == "latent":
            width = -(-cache.key_dim // self.latent_multiple) * self.latent_multiple
            packed = LATENT_FP8 if self.dtype == "fp8" and cache.span else itemsize
            return width * packed + cache.span * (1 + 4 / 128)
        if cache.kind in ("state", "none"):
            return 0.0
        heads = max(1, -(-cache.kv_heads // self.tp))
        return heads * ((cache.key_dim + cache.value_dim) * itemsize + 2 * scale)

    def state_bytes(self, cache: LayerCache) -> int:
        """Bytes a sequence's recurrent state takes in one layer on one rank."""
        if cache.kind != "state":
            return 0
        itemsize = cache.state_itemsize or self.state_itemsize
        total = cache.conv_elements * self.state_itemsize + cache.state_elements * itemsize
        return -(-total // self.tp)


def held_tokens(cache: LayerCache, tokens: int, forward_tokens: int) -> int:
    """Tokens of a sequence of `tokens` a layer must hold; `forward_tokens` run in one pass."""
    if cache.kind == "sliding":
        return min(tokens, max(0, cache.span - 1) + forward_tokens)
    if cache.kind == "chunked":
        return min(tokens, cache.span + forward_tokens)
    if cache.kind == "cross":
        return cache.span
    return tokens


def full_token_bytes(caches: Mapping[LayerCache, int], form: CacheFormat) -> float:
    """Bytes a token takes over all layers in a cache that keeps every token."""
    return sum(count * form.token_bytes(cache) for cache, count in caches.items())


@dataclass(frozen=True, slots=True)
class PagedPool:
    """A pool of equal blocks. A block holds `block_tokens` tokens of one group of layers.

    `groups` are the caches of its groups and how many there are of each: a sequence takes blocks
    from every one.
    """

    block_tokens: int
    block_bytes: int
    groups: tuple[tuple[LayerCache, int], ...]
    #: Pages a recurrent state pins in each of its groups.
    state_pages: int = 1
    #: Where states have a pool of their own: its share of the whole, and a sequence's bytes in it.
    state_share: float = 0.0
    state_bytes: int = 0

    def blocks(self, pool_bytes: int) -> int:
        """Blocks that fit."""
        return int(max(0, pool_bytes) * (1 - self.state_share)) // self.block_bytes

    def slots(self, pool_bytes: int) -> int | None:
        """Sequences whose states fit; None where states are in blocks."""
        if not self.state_bytes:
            return None
        return int(max(0, pool_bytes) * self.state_share) // self.state_bytes

    def whole_bytes(self, blocks: int, sequences: int) -> int:
        """The pool that holds so many blocks, and the states of so many sequences."""
        paged = blocks * self.block_bytes
        if not self.state_bytes:
            return paged
        states = sequences * self.state_bytes
        return int(max(paged / (1 - self.state_share), states / self.state_share))

    def sequence_blocks(self, tokens: int, forward_tokens: int) -> int:
        """Blocks a sequence of `tokens` takes, over all groups."""
        total = 0
        for cache, count in self.groups:
            if cache.kind == "state":
                total += count * self.state_pages
                continue
            held = held_tokens(cache, tokens, forward_tokens)
            # A window need not start at a block's first token.
            spare = int(cache.kind == "sliding")
            total += count * (-(-held // self.block_tokens) + spare)
        return total

    @property
    def kinds(self) -> int:
        """Groups in all."""
        return sum(count for _, count in self.groups)


def uniform_pool(
    caches: Mapping[LayerCache, int], form: CacheFormat, block_tokens: int
) -> PagedPool:
    """One block for all layers together, each of them keeping every token."""
    per_token = full_token_bytes(caches, form)
    kind = next((c for c in caches if c.kind != "none"), LayerCache("none"))
    whole = kind if kind.kind == "latent" else replace(kind, kind="full")
    return PagedPool(block_tokens, max(1, int(per_token * block_tokens)), ((whole, 1),))


def split_pool(
    caches: Mapping[LayerCache, int],
    form: CacheFormat,
    block_tokens: int,
    window_ratio: float,
    state_ratio: float,
) -> PagedPool:
    """SGLang's pools: windows hold `window_ratio` of the tokens that full layers hold, and states
    have `state_ratio` of the token pool's bytes to themselves (server_args.py)."""
    full, windows, states = 0.0, 0.0, 0
    for cache, count in caches.items():
        states += count * form.state_bytes(cache)
        if cache.kind in ("sliding", "chunked"):
            windows += count * form.token_bytes(cache)
        else:
            full += count * form.token_bytes(cache)
    per_token = full + windows * (window_ratio if full else 1.0)
    share = state_ratio / (1 + state_ratio) if states else 0.0
    kept = next((c for c in caches if c.kind in ("full", "latent")), LayerCache("full"))
    block = max(1, int(per_token * block_tokens))
    return PagedPool(block_tokens, block, ((kept, 1),), state_share=share, state_bytes=states)


def grouped_pool(
    caches: Mapping[LayerCache, int],
    form: CacheFormat,
    block_tokens: int,
    state_pages: int,
    group_bound: float,
) -> PagedPool:
    """vLLM's hybrid pool (`_get_kv_cache_groups_uniform_page_size`).

    Layers are split into groups of equal size, the size of the rarest kind (or of the commonest,
    where that is less than `group_bound` times as common), the last group of a kind padded. All
    groups share a pool whose block is one group's pages. Where layers keep states, the block is
    enlarged until a page of attention is no smaller than a page of state.
    """
    counts = {c: n for c, n in caches.items() if c.kind != "none"}
    states = [form.state_bytes(c) for c in counts if c.kind == "state"]
    tokens = [form.token_bytes(c) for c in counts if c.kind != "state"]
    block = block_tokens
    if states and tokens:
        needed = -(-max(states) // max(1, int(min(tokens))))
        block = max(block, -(-needed // block_tokens) * block_tokens)
    page = int(max([t * block for t in tokens] + [float(s) for s in states]))
    least, most = min(counts.values()), max(counts.values())
    size = most if most < least * group_bound else least
    groups = tuple((c, -(-n // size)) for c, n in counts.items())
    return PagedPool(block, max(1, page * size), groups, state_pages)


def pool_of(
    caches: Mapping[LayerCache, int],
    form: CacheFormat,
    block_tokens: int,
    *,
    hybrid: bool,
    state_pages: int,
    group_bound: float,
) -> PagedPool:
    """The pool of an engine that groups layers (`hybrid`) or pays every layer for every token."""
    kinds = {c.kind for c in caches} - {"none"}
    mixed = len(kinds) > 1 or kinds == {"state"}
    if mixed and (hybrid or "state" in kinds):
        return grouped_pool(caches, form, block_tokens, state_pages, group_bound)
    return uniform_pool(caches, form, block_tokens)
