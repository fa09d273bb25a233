"""The half of a layer that mixes tokens: attention of every kind and recurrent layers.

Each function gives the tensors and the cache of one layer. Shapes are those of the modelling code
in transformers 5.23; parameter counts of public models are checked to the last one in the tests.
"""

from __future__ import annotations

from sizewright_server.estimation.serving.config import Settings
from sizewright_server.estimation.serving.families import Family
from sizewright_server.estimation.serving.model import CacheKind, LayerCache, Role, Split, Tensor

NO_CACHE = LayerCache("none")


def linear(
    rows: int, columns: int, split: Split, bias: bool = False, role: Role = "attention"
) -> list[Tensor]:
    """A linear layer, with its bias where it has one."""
    made = [Tensor(role, rows, columns, split=split)]
    if bias:
        made.append(Tensor("vector", rows, split=split))
    return made


def attention(
    settings: Settings, family: Family, kind: CacheKind, span: int = 0, *, borrows: bool = False
) -> tuple[list[Tensor], LayerCache]:
    """Multi-head, grouped-query or multi-query attention.

    A layer that `borrows` reads another layer's keys and values and has none of its own (Gemma 4).
    """
    hidden, heads = settings.size("hidden"), settings.size("heads")
    kv_heads, head_dim = kv_heads_of(settings, heads), head_dim_of(settings, hidden, heads)
    shared_kv = False
    if kind == "full":
        head_dim = settings.or_else("global_head_dim", head_dim)
        shared_kv = settings.flag("attention_k_eq_v")
        if shared_kv:
            kv_heads = settings.or_else("num_global_key_value_heads", kv_heads)
    qkv_bias, out_bias = family.flag("qkv_bias", settings), family.flag("out_bias", settings)
    gate = 2 if family.flag("output_gate", settings) else 1
    made = linear(gate * heads * head_dim, hidden, "heads", qkv_bias)
    for _ in range(0 if borrows else 1 if shared_kv else 2):
        made += linear(kv_heads * head_dim, hidden, "kv-heads", qkv_bias)
    made += linear(hidden, heads * head_dim, "heads", out_bias)
    if borrows:
        return [*made, Tensor("vector", head_dim)], NO_CACHE
    made += _query_key_norms(family.words("qk_norm", settings), heads, kv_heads, head_dim, family)
    if family.flag("sinks", settings):
        made.append(Tensor("vector", heads, split="heads"))
    cache = LayerCache(kind, kv_heads, head_dim, head_dim, span)
    return made, cache


def _query_key_norms(
    norm: str, heads: int, kv_heads: int, head_dim: int, family: Family
) -> list[Tensor]:
    """Norms on queries and keys: over a head, over all heads at once, or each head its own."""
    times = 2 if family.norm_bias else 1
    if norm == "head":
        return [Tensor("vector", head_dim, count=2 * times)]
    if norm in ("full", "per-head"):
        return [
            Tensor("vector", heads * head_dim, count=times, split="heads"),
            Tensor("vector", kv_heads * head_dim, count=times, split="kv-heads"),
        ]
    return []


def head_dim_of(settings: Settings, hidden: int, heads: int) -> int:
    """Width of a head: stated, or the hidden width over the heads."""
    return settings.optional("head_dim") or max(1, hidden // heads)


def kv_heads_of(settings: Settings, heads: int) -> int:
    """Key/value heads: stated, one for multi-query models, else as many as there are heads."""
    if settings.flag("multi_query") and not settings.flag("new_decoder_architecture"):
        return 1
    stated = settings.optional("kv_heads")
    if stated is None:
        stated = settings.section("attn_config").get("kv_n_heads")
    return int(stated) if stated else heads


def latent_attention(settings: Settings) -> tuple[list[Tensor], LayerCache]:
    """Multi-head latent attention (DeepSeek-V2): keys and values come from one cached latent.

    Where the configuration has an indexer (DeepSeek-V3.2), its keys are cached beside the latent.
    """
    hidden, heads = settings.size("hidden"), settings.size("heads")
    rank, rope = settings.size("kv_lora_rank"), settings.size("qk_rope_head_dim")
    nope, value = settings.size("qk_nope_head_dim"), settings.size("v_head_dim")
    query = heads * (nope + rope)
    made: list[Tensor] = []
    query_rank = settings.optional("q_lora_rank")
    if query_rank:
        made += [*linear(query_rank, hidden, "none"), Tensor("vector", query_rank)]
        made += linear(query, query_rank, "heads")
    else:
        made += linear(query, hidden, "heads")
    made += [*linear(rank + rope, hidden, "none"), Tensor("vector", rank)]
    made += linear(heads * (nope + value), rank, "latent-heads")
    made += linear(hidden, heads * value, "heads")
    width = rank + rope
    index_dim = settings.optional("index_head_dim")
    if index_dim:
        index_heads = settings.size("index_n_heads")
        made += linear(index_heads * index_dim, query_rank or hidden, "none")
        made += [*linear(index_dim, hidden, "none"), Tensor("vector", index_dim, count=2)]
        made += linear(index_heads, hidden, "none")
    return made, LayerCache("latent", heads, width, nope + rope + value, index_dim or 0)


#: Keys that say the type of recurrent states; engines keep the model's type without them.
STATE_TYPE_KEYS = ("mamba_ssm_dtype", "mamba_ssm_cache_dtype")


def state_itemsize(settings: Settings) -> int:
    """Bytes of a state's element: 4 where the configuration says float32, else the model's own."""
    stated = [settings.values.get(key) for key in STATE_TYPE_KEYS]
    return 4 if "float32" in stated else 0


def gated_delta(settings: Settings) -> tuple[list[Tensor], LayerCache]:
    """Gated DeltaNet (Qwen3-Next): a convolution and a matrix state for each value head."""
    hidden = settings.size("hidden")
    key_heads, value_heads = (
        settings.size("linear_num_key_heads"),
        settings.size("linear_num_value_heads"),
    )
    key_dim, value_dim = (
        settings.size("linear_key_head_dim"),
        settings.size("linear_value_head_dim"),
    )
    kernel = settings.or_else("linear_conv_kernel_dim", 4)
    keys, values = key_heads * key_dim, value_heads * value_dim
    made = [
        *linear(2 * keys + 2 * values, hidden, "width"),
        *linear(2 * value_heads, hidden, "width"),
        *linear(hidden, values, "width"),
        Tensor("vector", 2 * keys + values, kernel, split="width"),
        Tensor("vector", value_heads, count=2, split="width", itemsize=4),
        Tensor("vector", value_dim),
    ]
    cache = LayerCache(
        "state",
        conv_elements=(2 * keys + values) * (kernel - 1),
        state_elements=value_heads * key_dim * value_dim,
        state_itemsize=state_itemsize(settings),
    )
    return made, cache


def lightning(settings: Settings) -> tuple[list[Tensor], LayerCache]:
    """Lightning attention (MiniMax-01): a matrix state for each head, and a gated output."""
    hidden, heads = settings.size("hidden"), settings.size("heads")
    head_dim = head_dim_of(settings, hidden, heads)
    width = heads * head_dim
    made = [
        *linear(3 * width, hidden, "heads"),
        *linear(width, hidden, "heads"),
        *linear(hidden, width, "heads"),
        Tensor("vector", width, split="heads"),
    ]
    cache = LayerCache(
        "state", state_elements=width * head_dim, state_itemsize=state_itemsize(settings)
    )
    return made, cache


def mamba2(settings: Settings) -> tuple[list[Tensor], LayerCache]:
    """Mamba-2: heads with a state of `ssm_state_size` for each channel."""
    hidden = settings.size("hidden")
    heads = settings.optional("mamba_num_heads") or settings.size("mamba_n_heads")
    head = settings.optional("mamba_head_dim") or settings.size("mamba_d_head")
    state = settings.optional("ssm_state_size") or settings.size("mamba_d_state")
    groups = settings.optional("n_groups") or settings.or_else("mamba_n_groups", 1)
    kernel = settings.optional("conv_kernel") or settings.or_else("mamba_d_conv", 4)
    inner = heads * head
    channels = inner + 2 * groups * state
    made = [
        *linear(inner + channels + heads, hidden, "width"),
        *linear(hidden, inner, "width"),
        Tensor("vector", channels, kernel, split="width"),
        Tensor("vector", heads, count=3, split="width", itemsize=4),
        Tensor("vector", inner, split="width"),
    ]
    if settings.flag("use_conv_bias", True):
        made.append(Tensor("vector", channels, split="width"))
    cache = LayerCache(
        "state",
        conv_elements=channels * (kernel - 1),
        state_elements=inner * state,
        state_itemsize=state_itemsize(settings),
    )
    return made, cache


def mamba(settings: Settings) -> tuple[list[Tensor], LayerCache]:
    """Mamba-1, alone or within Jamba, which norms its time step and states."""
    hidden = settings.size("hidden")
    expand = settings.optional("mamba_expand") or settings.or_else("expand", 2)
    state = settings.optional("mamba_d_state") or settings.or_else("state_size", 16)
    kernel = settings.optional("mamba_d_conv") or settings.or_else("conv_kernel", 4)
    rank = settings.optional("mamba_dt_rank") or settings.or_else(
        "time_step_rank", -(-hidden // 16)
    )
    inner = expand * hidden
    made = [
        *linear(2 * inner, hidden, "width"),
        *linear(rank + 2 * state, inner, "width"),
        *linear(inner, rank, "width", bias=True),
        *linear(hidden, inner, "width"),
        Tensor("vector", inner, kernel, split="width"),
        Tensor("vector", inner, split="width"),
        Tensor("vector", inner, state, split="width", itemsize=4),
        Tensor("vector", inner, split="width", itemsize=4),
    ]
    if "mamba_d_state" in settings.values:
        made.append(Tensor("vector", rank + 2 * state))
    cache = LayerCache("state", conv_elements=inner * (kernel - 1), state_elements=inner * state)
    return made, cache


def cross_attention(settings: Settings, encoder_tokens: int) -> tuple[list[Tensor], LayerCache]:
    """Attention to an encoder's output, with gates (Llama 3.2 Vision)."""
    hidden, heads = settings.size("hidden"), settings.size("heads")
    kv_heads, head_dim = kv_heads_of(settings, heads), head_dim_of(settings, hidden, heads)
    made = [
        *linear(heads * head_dim, hidden, "heads"),
        *linear(kv_heads * head_dim, hidden, "kv-heads"),
        *linear(kv_heads * head_dim, hidden, "kv-heads"),
        *linear(hidden, heads * head_dim, "heads"),
        Tensor("vector", head_dim, count=2),
        Tensor("vector", 1, count=2),
    ]
    return made, LayerCache("cross", kv_heads, head_dim, head_dim, encoder_tokens)
