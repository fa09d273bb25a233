"""transformers and plain PyTorch: weights, a cache that grows, and the modules' own activations.

For models and stored types the tape does not lower; what it lowers is estimated operator by
operator (`estimation/inference.py`). Sources: transformers modelling code and cache_utils.py,
bitsandbytes, AutoGPTQ and AutoAWQ kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.serving.caches import CacheFormat, held_tokens
from sizewright_server.estimation.serving.model import LayerCache
from sizewright_server.estimation.serving.rules import Rule, Rules, rules_of
from sizewright_server.estimation.serving.run import ANY_DEVICE, ServingDevice
from sizewright_server.estimation.serving.stages import Setup
from sizewright_server.estimation.serving.weights import Ranks

#: Tokens a quantised cache keeps as they are before it converts them (QuantizedCache,
#: `residual_length`).
RECENT_TOKENS = 128
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

    def __init__(self, setup: Setup, device: ServingDevice = ANY_DEVICE) -> None:
        self.setup, self.run, self.model = setup, setup.run, setup.model
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
        form, whole = (
            CacheFormat(self.run.kv_type, size, tp),
            CacheFormat(self.plain_type, size, tp),
        )
        recent = RECENT_TOKENS if self.run.cache == "quantised" else 0
        total = 0.0
        for cache, count in self.setup.caches(stage).items():
            kept = expanded(cache)
            held = self._held(kept, tokens)
            late = min(held, recent)
            tokens_bytes = (held - late) * form.token_bytes(kept) + late * whole.token_bytes(kept)
            total += count * (tokens_bytes + form.state_bytes(kept))
        return int(total * self.run.batch)

    def _held(self, cache: LayerCache, tokens: int) -> int:
        """Tokens of a sequence of `tokens` a layer holds; a decoder's start after the prompt."""
        if cache.kind == "cross":
            return cache.span or self.run.input_tokens
        if self.model.encoder_decoder and not self.model.source_tokens:
            tokens = max(0, tokens - self.run.input_tokens) + 1
        return held_tokens(cache, tokens, 0) if self._windows else tokens

    @property
    def plain_type(self) -> str:
        """The type of the computation, as caches name it."""
        return self.run.compute_type

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
        tokens = max(self.run.input_tokens, self.model.source_tokens)
        held = self._static_tokens() or self.run.input_tokens
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
        tokens, static = self.run.tokens, self._static_tokens()
        growing = 0 if static else self._concatenated(stage, tokens)
        return self._moment(
            "decode",
            self.cache_bytes(stage, static or tokens),
            concatenation=self.moving(max(growing, self.expanded_heads(static or tokens))),
            activations=self.moving(self.activations(1)),
            logits=self.moving(self.logits(stage, self.run.batch)),
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

    def _static_tokens(self) -> int | None:
        """Tokens a cache allocated ahead has room for."""
        if self.run.cache != "static":
            return None
        return self.run.cache_tokens or self.run.tokens

    def _concatenated(self, stage: int, tokens: int) -> int:
        """Keys of one layer, old and new at once; an encoder's stay as they are."""
        if self.model.encoder_decoder:
            width = self.model.heads * self.model.head_dim * self.setup.itemsize
            own = LayerCache("full", self.model.heads)
            return self.run.batch * self._held(own, tokens) * width // self.setup.layout.tp
        layers = max(1, self.setup.layer_count(stage))
        return self.cache_bytes(stage, tokens) // layers // 2

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
        return 2 * self.run.batch * tokens * heads * model.head_dim * self.setup.itemsize

    @property
    def _latent(self) -> bool:
        return any(cache.kind == "latent" for cache in self.setup.caches(0))

    def _kept(self) -> int:
        """Positions that get logits in the prefill, over all sequences."""
        run = self.run
        if self.model.encoder_decoder and not self.model.source_tokens:
            return run.batch
        every = run.logits_to_keep == 0 or (self._every_logit and run.new_tokens > 0)
        return run.batch * (run.input_tokens if every else min(run.logits_to_keep, run.tokens))

    def logits(self, stage: int, rows: int) -> int:
        """Logits of the last stage; older versions copy them to fp32."""
        if stage != self.setup.layout.pp - 1:
            return 0
        widens = self._every_logit or rows <= self.run.batch
        each = self.setup.itemsize + (4 if widens else 0)
        return rows * self.model.vocab * each

    def activations(self, tokens: int) -> int:
        """The widest moment of a layer over `tokens` of every sequence.

        Beside it four hidden widths stand: the embedding's output, which the model's frame holds,
        the layer's input, the stream after attention, and the network's normed input.
        """
        model, size, tp = self.model, self.setup.itemsize, self.setup.layout.tp
        rows = tokens * self.run.batch
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
        return self.run.batch * heads * tokens * max(tokens, 1) * each

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
        rows = tokens * self.run.batch
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
