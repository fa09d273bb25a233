"""transformers and plain PyTorch: weights, a cache that grows, and the modules' own activations.

For models and stored types the tape does not lower; what it lowers is estimated operator by
operator (`estimation/inference.py`). Sources: transformers modelling code and cache_utils.py,
bitsandbytes, AutoGPTQ and AutoAWQ kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.serving.caches import CACHE_TYPES, CacheFormat, held_tokens
from sizewright_server.estimation.serving.model import LayerCache
from sizewright_server.estimation.serving.rules import Rule, Rules, rules_of
from sizewright_server.estimation.serving.run import ANY_DEVICE, ServingDevice
from sizewright_server.estimation.serving.stages import Setup
from sizewright_server.estimation.serving.weights import Ranks

#: Tokens a quantised cache keeps as they are before it converts them (QuantizedCache,
#: `residual_length`), and scale and zero of a group of 64 elements: 0.5625 B an element of 4 bits
#: was measured with optimum-quanto.
RECENT_TOKENS = 128
GROUP_BYTES = 4 / 64
#: cuBLAS workspace in PyTorch's allocator: 8,519,680 bytes, and 32 MiB on Hopper (its CUDA context
#: file, `getChosenWorkspaceSize`); a second one for another stream at most.
WORKSPACE, HOPPER_WORKSPACE = 8_519_680, 32 * 2**20
#: What comes and goes lies this share around the arithmetic; twice that for a newer version.
MOVING_DOUBT = 0.35
#: Prompts of this many tokens make AutoAWQ and ExLlama dequantise whole matrices.
DEQUANTISES_FROM = 51


@dataclass(frozen=True, slots=True)
class Moment:
    """A phase on one GPU: named bytes beside the weights."""

    phase: str
    parts: tuple[tuple[str, ByteRange], ...]

    @property
    def total(self) -> ByteRange:
        """All of them."""
        total = ByteRange(0, 0, 0)
        for _, size in self.parts:
            total = total + size
        return total


class HuggingFace:
    """Peaks of a model split over `layout.pp` GPUs by layers (device_map) and `layout.tp` ranks."""

    def __init__(
        self,
        setup: Setup,
        device: ServingDevice = ANY_DEVICE,
        asked: tuple[int, int] | None = None,
    ) -> None:
        """`asked` are a batch and a prompt's length other than the run's own."""
        self.setup, self.run, self.model = setup, setup.run, setup.model
        self.batch, self.prompt = asked or (self.run.batch, self.run.input_tokens)
        self.tokens = self.prompt + self.run.new_tokens
        #: Tokens a cache allocated ahead has room for; None where the cache grows.
        self.ahead: int | None = None
        if self.run.cache == "static":
            stated = self.run.cache_tokens if asked is None else None
            self.ahead = stated or self.tokens
        # A version of plain PyTorch says nothing of transformers' code.
        named = self.run.version if self.run.engine == "transformers" else None
        self.rules: Rules = rules_of("transformers", named)
        usual = WORKSPACE if device.capability and int(device.capability) != 9 else HOPPER_WORKSPACE
        self.workspace = ByteRange(min(usual, WORKSPACE), usual, 2 * usual)

    def weights(self, stage: int) -> list[tuple[str, int]]:
        """Named bytes of a stage's weights."""
        layout = self.setup.layout
        ranks = Ranks(layout.tp, layout.pp, layout.ep, stage, pads=False)
        held = self.setup.tables.weights(layout.tp, padded=False).rank(ranks, rotary_itemsize=0)
        scale = self.setup.stored_share
        parts = [
            ("layers", int((held.layers + held.experts) * scale)),
            ("embedding", int(held.embedding * scale)),
            ("head", int(held.head * scale)),
            ("vision-tower", int(held.encoder * scale)),
            ("mask-buffers", self.model.mask_elements if stage == 0 else 0),
        ]
        return [(name, size) for name, size in parts if size]

    def weight_bytes(self, stage: int) -> int:
        """Bytes of a stage's weights, which do not depend on batch or length."""
        key = ("weights", self.setup.layout, stage)
        known = self.setup.tables.numbers
        if key not in known:
            known[key] = sum(n for _, n in self.weights(stage))
        return known[key]

    def cache_bytes(self, stage: int, tokens: int) -> int:
        """The cache of a stage's layers for every sequence at `tokens` tokens."""
        tp, size = self.setup.layout.tp, self.setup.itemsize
        form = CacheFormat(self.run.kv_type, size, tp)
        total = 0.0
        for cache, count in self.setup.caches(stage).items():
            kept = expanded(cache)
            held = self._held(kept, tokens)
            if self.run.cache == "quantised":
                total += count * self._quantised(kept, held)
            else:
                total += count * held * form.token_bytes(kept)
            total += count * form.state_bytes(kept)
        return int(total * self.batch)

    def _quantised(self, cache: LayerCache, held: int) -> float:
        """A layer's quantised cache: the prompt at once, then what is written as it comes."""
        plain = self._plain_format.token_bytes(cache)
        late = min(max(0, held - self.prompt), RECENT_TOKENS - 1)
        share = (CACHE_TYPES[self.run.kv_type][0] + GROUP_BYTES) / self.setup.itemsize
        return plain * ((held - late) * share + late)

    @property
    def _plain_format(self) -> CacheFormat:
        """Caches in the type of the computation."""
        return CacheFormat(self.run.compute_type, self.setup.itemsize, self.setup.layout.tp)

    def _held(self, cache: LayerCache, tokens: int) -> int:
        """Tokens of a sequence of `tokens` a layer holds; a decoder's start after the prompt."""
        if cache.kind == "cross":
            return cache.span or self.prompt
        if self.model.encoder_decoder and not self.model.source_tokens:
            tokens = max(0, tokens - self.prompt) + 1
        return held_tokens(cache, tokens, 0) if self._windows else tokens

    @property
    def _windows(self) -> bool:
        return self.rules.rule("windowed-caches").on

    def moments(self, stage: int) -> tuple[Moment, ...]:
        """Prefill and the last step of the decode."""
        run = self.run
        made = []
        if not run.token_by_token:
            made.append(self._prefill(stage))
        if run.new_tokens or run.token_by_token:
            made.append(self._decode(stage))
        return tuple(made)

    def _prefill(self, stage: int) -> Moment:
        """The prompt in one pass, its cache being made."""
        tokens = max(self.prompt, self.model.source_tokens)
        held = self.ahead or self.prompt
        shown = self.rules.rule("prompt-activations")
        return self._moment(
            "prefill",
            self.cache_bytes(stage, held) if self._caches else 0,
            activations=self.moving(self.activations(tokens), shown),
            logits=self.moving(self.logits(stage, self._kept())),
            kernel_buffers=self.moving(self.kernel_buffers(tokens)),
        )

    def _decode(self, stage: int) -> Moment:
        """The last step: the whole cache, and one layer's keys twice while they grow."""
        tokens, static = self.tokens, self.ahead
        cache = self.cache_bytes(stage, static or tokens)
        growing = 0 if static else self._concatenated(stage, tokens, cache)
        return self._moment(
            "decode",
            cache,
            concatenation=self.moving(max(growing, self.expanded_heads(static or tokens))),
            activations=self.moving(self.activations(1)),
            logits=self.moving(self.logits(stage, self.batch)),
            kernel_buffers=self.moving(self.kernel_buffers(1)),
        )

    def _moment(self, phase: str, cache: int, **moving: ByteRange) -> Moment:
        """The cache, what comes and goes, and the workspace."""
        named = [(name.replace("_", "-"), size) for name, size in moving.items()]
        held = ("kv-cache", ByteRange(cache, cache, cache))
        return Moment(phase, (held, *named, ("library-workspaces", self.workspace)))

    def moving(self, size: int, shown: Rule | None = None) -> ByteRange:
        """Bytes that come and go, with their doubt; `shown` is the share of them that is there."""
        doubt = MOVING_DOUBT * (2 if self.rules.is_newer else 1)
        low, best, high = (shown.low, shown.value, shown.high) if shown else (1, 1, 1)
        return ByteRange(
            int(size * low * (1 - doubt)), int(size * best), int(size * high * (1 + doubt))
        )

    @property
    def _caches(self) -> bool:
        return self.run.cache != "none"

    def _concatenated(self, stage: int, tokens: int, cache: int) -> int:
        """Keys of one layer, old and new at once; an encoder's stay as they are."""
        if self.model.encoder_decoder:
            width = self.model.heads * self.model.head_dim * self.setup.itemsize
            own = LayerCache("full", self.model.heads)
            return self.batch * self._held(own, tokens) * width // self.setup.layout.tp
        if self.run.cache == "quantised":
            # Both are made anew from their quantised form, and again with the latest behind them.
            caches = [expanded(cache) for cache in self.setup.caches(stage)]
            widest = max(self._held(c, tokens) * self._plain_format.token_bytes(c) for c in caches)
            return int(2 * widest * self.batch)
        layers = max(1, self.setup.layer_count(stage))
        return cache // layers // 2

    @property
    def _every_logit(self) -> bool:
        """Whether the prefill of this version makes logits of the whole prompt."""
        return not self.rules.rule("last-logits").on

    def expanded_heads(self, tokens: int) -> int:
        """One layer's keys and values repeated for every query head, where the version does so."""
        kernel = "flash" if self.run.attention == "flash-attention-2" else "sdpa"
        repeats = self.run.attention == "eager" or self.rules.rule(f"expands-heads-{kernel}").on
        model = self.model
        if not repeats or model.kv_heads == model.heads or self._latent:
            return 0
        heads = -(-model.heads // self.setup.layout.tp)
        return 2 * self.batch * tokens * heads * model.head_dim * self.setup.itemsize

    @property
    def _latent(self) -> bool:
        return any(cache.kind == "latent" for cache in self.setup.caches(0))

    def _kept(self) -> int:
        """Positions that get logits in the prefill, over all sequences."""
        run = self.run
        if self.model.encoder_decoder and not self.model.source_tokens:
            return self.batch
        every = run.logits_to_keep == 0 or (self._every_logit and run.new_tokens > 0)
        return self.batch * (self.prompt if every else min(run.logits_to_keep, self.tokens))

    def logits(self, stage: int, rows: int) -> int:
        """Logits of the last stage; older versions copy them to fp32."""
        if stage != self.setup.layout.pp - 1:
            return 0
        widens = self._every_logit or rows <= self.batch
        each = self.setup.itemsize + (4 if widens else 0)
        return rows * self.model.vocab * each

    def activations(self, tokens: int) -> int:
        """The widest moment of a layer over `tokens` of every sequence.

        Beside it four hidden widths stand: the embedding's output, which the model's frame holds,
        the layer's input, the stream after attention, and the network's normed input.
        """
        model, size, tp = self.model, self.setup.itemsize, self.setup.layout.tp
        rows = tokens * self.batch
        hidden, heads = model.hidden, -(-model.heads * model.head_dim // tp)
        network = (3 if model.gated else 2) * -(-model.ffn // tp) + 4 * hidden
        mixing = 3 * hidden + 5 * heads
        norm = 3 * hidden + (8 * hidden) // size
        moments = [rows * width * size for width in (network, mixing, norm)]
        moments[1] += self._scores(tokens)
        moments.append(self._expert_moment(rows))
        return max(moments)

    def _scores(self, tokens: int) -> int:
        """Attention probabilities where the kernel makes them: two copies, one perhaps in fp32."""
        if self.run.attention != "eager":
            return 0
        each = 2 * self.setup.itemsize
        heads = -(-self.model.heads // self.setup.layout.tp)
        return self.batch * heads * tokens * max(tokens, 1) * each

    def _expert_moment(self, rows: int) -> int:
        """Experts one after the other: their share of the tokens, beside the sum and the stream."""
        experts = self.model.experts
        if experts is None:
            return 0
        width = 3 * -(-experts.width // self.setup.layout.tp)
        share = -(-rows * experts.per_token // experts.count)
        return (share * (width + 2 * self.model.hidden) + 4 * rows * self.model.hidden) * (
            self.setup.itemsize
        )

    def kernel_buffers(self, tokens: int) -> int:
        """What quantised kernels keep beside their results, for a pass over `tokens`."""
        name, model, size = self.setup.scheme.name, self.model, self.setup.itemsize
        largest = model.hidden * max(model.ffn, model.hidden)
        rows = tokens * self.batch
        if name.startswith(("gptq", "w4a16")):
            return largest * size
        if name.startswith(("bnb-nf4", "awq", "hqq", "torchao-int4")):
            return largest * size if rows >= DEQUANTISES_FROM else 0
        if name == "bnb-int8":
            return rows * (4 * max(model.ffn, model.hidden) + max(model.ffn, model.hidden))
        if name.startswith("fp8"):
            return rows * max(model.ffn, model.hidden)
        return 0


def expanded(cache: LayerCache) -> LayerCache:
    """Latents as transformers caches them: keys and values of every head."""
    if cache.kind != "latent":
        return cache
    return replace(cache, kind="full", key_dim=cache.value_dim, value_dim=0)
