"""What one rank of an engine holds, apart from the cache: a stage of the pipeline at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.serving.caches import CacheFormat, PagedPool
from sizewright_server.estimation.serving.model import LayerCache, ServedModel, Tensor
from sizewright_server.estimation.serving.quantisation import Scheme
from sizewright_server.estimation.serving.run import ServingRun
from sizewright_server.estimation.serving.weights import Ranks, rank_weights, stage_layers
from sizewright_server.estimation.workload import Layout

NOTHING = ByteRange(0, 0, 0)
ITEMSIZE = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True, slots=True)
class Stage:
    """Bytes of a rank of one pipeline stage. `start` is there before the engine loads anything."""

    weights: ByteRange
    activations: ByteRange
    non_torch: ByteRange
    graphs: ByteRange
    start: ByteRange
    pool: PagedPool
    weight_parts: tuple[tuple[str, int], ...]

    def fixed(self, *, graphs: bool) -> ByteRange:
        """What is taken off the budget before the cache."""
        total = self.weights + self.activations + self.non_torch
        return total + self.graphs if graphs else total


@dataclass(frozen=True, slots=True)
class Setup:
    """A model, its quantisation and where its ranks stand."""

    model: ServedModel
    scheme: Scheme
    run: ServingRun
    layout: Layout
    draft: ServedModel | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of an activation."""
        return ITEMSIZE[self.run.compute_type]

    @property
    def attention_tp(self) -> int:
        """Ranks that share one sequence's heads."""
        return 1 if self.run.attention_data_parallel else self.layout.tp

    def stage_caches(self, stage: int) -> tuple[LayerCache, ...]:
        """The caches of a stage's layers, and the draft model's on the last stage."""
        caches = self.model.caches
        held = [caches[i] for i in stage_layers(len(caches), self.layout.pp, stage)]
        if self.draft is not None and stage == self.layout.pp - 1:
            held += self.draft.caches
        return tuple(held)

    def cache_format(self, latent_multiple: int = 1) -> CacheFormat:
        """How the cache is stored."""
        return CacheFormat(self.run.kv_type, self.itemsize, self.attention_tp, latent_multiple)

    def weight_parts(self, stage: int, *, pads: bool = True) -> list[tuple[str, int]]:
        """Named bytes of a stage's weights on one rank."""
        layout = self.layout
        ranks = Ranks(layout.tp, layout.pp, layout.ep, stage, pads, self.attention_tp)
        model = padded_experts(self.model, layout.tp) if self._pads_experts() else self.model
        held = rank_weights(model, self.scheme, self.itemsize, ranks, rotary_itemsize=self.itemsize)
        scale = self.stored_share
        parts = [
            ("layers", int(held.layers * scale)),
            ("experts", int(held.experts * scale)),
            ("embedding", int(held.embedding * scale)),
            ("head", int(held.head * scale)),
            ("vision-tower", int(held.encoder * scale)),
            ("rotary-tables", held.rotary),
            ("absorbed-projections", self._absorbed(stage)),
            ("adapters", self._adapters(stage)),
            ("draft-model", self._draft(stage)),
        ]
        return [(name, size) for name, size in parts if size]

    @property
    def stored_share(self) -> float:
        """What the files hold over what the shapes say: real files win over formulas."""
        stored = self.run.stored
        if stored is None or not stored.total_bytes:
            return 1.0
        whole = Ranks(pads=False)
        held = rank_weights(self.model, self.scheme, self.itemsize, whole, rotary_itemsize=0)
        return stored.total_bytes / held.total

    def _pads_experts(self) -> bool:
        return self.scheme.name == "mxfp4" and self.run.engine == "vllm"

    def _absorbed(self, stage: int) -> int:
        """Copies of the up-projections that absorbed latent attention keeps beside the weights."""
        rows = 0
        for i in stage_layers(len(self.model.order), self.layout.pp, stage):
            layer = self.model.layers[self.model.order[i]]
            if layer.cache.kind == "latent":
                rows += sum(_up_projection(t) for t in layer.tensors)
        return rows * self.itemsize // self.attention_tp

    def _adapters(self, stage: int) -> int:
        """Slots for LoRA adapters on every linear layer; A whole on each rank, B divided."""
        wanted = self.run.adapters
        if wanted is None:
            return 0
        total = 0
        for i in stage_layers(len(self.model.order), self.layout.pp, stage):
            for tensor in self.model.layers[self.model.order[i]].tensors:
                if tensor.role in ("attention", "linear"):
                    width = tensor.columns + tensor.rows // self.layout.tp
                    total += tensor.count * width * wanted.rank
        return wanted.count * total * self.itemsize

    def _draft(self, stage: int) -> int:
        """The draft model's weights, which stand on the last stage."""
        if self.draft is None or stage != self.layout.pp - 1:
            return 0
        plain = replace(self.scheme, converts=())
        ranks = Ranks(self.layout.tp, 1, 1, 0)
        held = rank_weights(self.draft, plain, self.itemsize, ranks, rotary_itemsize=self.itemsize)
        return held.total


def _up_projection(tensor: Tensor) -> int:
    """Elements of the matrix that turns latents into keys and values."""
    return tensor.elements if tensor.split == "latent-heads" else 0


#: vLLM's MXFP4 experts are padded: the hidden width to 256, each rank's expert width to 128. Two
#: logs of gpt-oss-120b (64.4 GiB by Triton, 66.0 by Marlin) and one of gpt-oss-20b at two ranks.
HIDDEN_MULTIPLE, WIDTH_MULTIPLE = 256, 128


def padded_experts(model: ServedModel, tp: int) -> ServedModel:
    """The model with its experts as MXFP4 kernels hold them."""
    experts = model.experts
    if experts is None:
        return model
    share = -(-experts.width // tp)
    width = tp * (-(-share // WIDTH_MULTIPLE) * WIDTH_MULTIPLE)
    hidden = -(-model.hidden // HIDDEN_MULTIPLE) * HIDDEN_MULTIPLE

    def padded(tensor: Tensor) -> Tensor:
        if tensor.role != "experts":
            return tensor
        down = tensor.count == experts.count
        rows, columns = (hidden, width) if down else (width, hidden)
        return replace(tensor, rows=rows, columns=columns)

    layers = tuple(
        replace(layer, tensors=tuple(padded(tensor) for tensor in layer.tensors))
        for layer in model.layers
    )
    return replace(model, layers=layers)
