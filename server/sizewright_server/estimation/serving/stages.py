"""What one rank of an engine holds, apart from the cache: a stage of the pipeline at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from sizewright_server.estimation.memory import ByteRange
from sizewright_server.estimation.serving.adapter_slots import slot_elements
from sizewright_server.estimation.serving.caches import CacheFormat, PagedPool
from sizewright_server.estimation.serving.model import LayerCache, ServedModel, Tensor
from sizewright_server.estimation.serving.quantisation import Scheme
from sizewright_server.estimation.serving.run import ServingRun
from sizewright_server.estimation.serving.weights import Ranks, WeightTable, stage_layers
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
    #: Its number in the pipeline: the first of those that hold the same.
    index: int = 0
    #: How the activations come about, with numbers.
    activation_words: str = ""

    def fixed(self, *, graphs: bool) -> ByteRange:
        """What is taken off the budget before the cache."""
        total = self.weights + self.activations + self.non_torch
        return total + self.graphs if graphs else total


CacheCounts = Mapping[LayerCache, int]


class Tables:
    """What is the same for every layout of a model: its weights by division, its caches by layer.

    `draft` keeps the model's own unquantised type.
    """

    def __init__(
        self, model: ServedModel, scheme: Scheme, itemsize: int, draft: ServedModel | None = None
    ) -> None:
        self.model, self.scheme, self.itemsize, self.draft = model, scheme, itemsize, draft
        self._caches = model.caches
        self._weights: dict[int, WeightTable] = {}
        self._counts: dict[tuple[int, int], CacheCounts] = {}
        self._stages: dict[Hashable, Stage] = {}
        self._shared: dict[Hashable, tuple[list[tuple[str, int]], PagedPool]] = {}
        self._groups: dict[int, tuple[tuple[int, int], ...]] = {}
        #: Sums that neither batch nor length changes, by what they are of.
        self.numbers: dict[Hashable, int] = {}

    def weights(self, tp: int, *, padded: bool) -> WeightTable:
        """The weights; `padded` as MXFP4 kernels hold experts on `tp` ranks."""
        key = tp if padded else 0
        if key not in self._weights:
            model = padded_experts(self.model, tp) if padded else self.model
            self._weights[key] = WeightTable(model, self.scheme, self.itemsize)
        return self._weights[key]

    def stage(self, key: Hashable, made: Callable[[], Stage]) -> Stage:
        """A stage that was made before, or a new one: replicas and middle stages are alike."""
        if key not in self._stages:
            self._stages[key] = made()
        return self._stages[key]

    def stage_kind(self, pp: int, stage: int) -> Hashable:
        """The layers of a stage by kind, and whether it is first or last."""
        kinds = self.model.order
        layers = Counter(kinds[i] for i in stage_layers(len(kinds), pp, stage))
        return frozenset(layers.items()), stage == 0, stage == pp - 1

    def stage_groups(self, pp: int) -> tuple[tuple[int, int], ...]:
        """The first stage of each kind in a pipeline, and how many are of its kind."""
        if pp not in self._groups:
            found: dict[Hashable, list[int]] = {}
            for stage in range(pp):
                found.setdefault(self.stage_kind(pp, stage), []).append(stage)
            self._groups[pp] = tuple((alike[0], len(alike)) for alike in found.values())
        return self._groups[pp]

    def shared(
        self, key: Hashable, made: Callable[[], tuple[list[tuple[str, int]], PagedPool]]
    ) -> tuple[list[tuple[str, int]], PagedPool]:
        """Weights and pool of a kind of stage, which are the same on every GPU."""
        if key not in self._shared:
            self._shared[key] = made()
        return self._shared[key]

    @cached_property
    def drafted(self) -> WeightTable | None:
        """The draft model's weights."""
        if self.draft is None:
            return None
        return WeightTable(self.draft, replace(self.scheme, converts=()), self.itemsize)

    def caches(self, pp: int, stage: int) -> CacheCounts:
        """How many layers of a stage have each cache; the draft model's are on the last stage."""
        key = (pp, stage)
        if key not in self._counts:
            made = Counter(self._caches[i] for i in stage_layers(len(self._caches), pp, stage))
            if self.draft is not None and stage == pp - 1:
                made.update(self.draft.caches)
            self._counts[key] = made
        return self._counts[key]

    @cached_property
    def latent_elements(self) -> tuple[int, ...]:
        """Elements of each layer kind's latent up-projection."""
        return tuple(
            sum(t.elements for t in layer.tensors if t.split == "latent-heads")
            for layer in self.model.layers
        )


@dataclass(frozen=True, slots=True)
class Setup:
    """A model, its quantisation and where its ranks stand."""

    tables: Tables
    run: ServingRun
    layout: Layout

    @property
    def model(self) -> ServedModel:
        """The model."""
        return self.tables.model

    @property
    def scheme(self) -> Scheme:
        """Its stored type."""
        return self.tables.scheme

    @property
    def itemsize(self) -> int:
        """Bytes of an activation."""
        return self.tables.itemsize

    @property
    def attention_tp(self) -> int:
        """Ranks that share one sequence's heads."""
        return 1 if self.run.attention_data_parallel else self.layout.tp

    def caches(self, stage: int) -> CacheCounts:
        """How many layers of a stage have each cache."""
        return self.tables.caches(self.layout.pp, stage)

    def stage_key(self, stage: int) -> Hashable:
        """Equal for stages that hold the same: their layers, and whether they are first or last."""
        layout = self.layout
        return layout.tp, layout.ep, layout.pp > 1, self.tables.stage_kind(layout.pp, stage)

    @property
    def distinct_stages(self) -> tuple[tuple[int, int], ...]:
        """The first stage of each kind with how many are like it: stages that hold the same."""
        return self.tables.stage_groups(self.layout.pp)

    def layer_count(self, stage: int) -> int:
        """Layers of a stage that have a cache."""
        return sum(n for cache, n in self.caches(stage).items() if cache.kind != "none")

    def cache_format(self, latent_multiple: int = 1) -> CacheFormat:
        """How the cache is stored."""
        return CacheFormat(self.run.kv_type, self.itemsize, self.attention_tp, latent_multiple)

    def weight_parts(self, stage: int, *, pads: bool = True) -> list[tuple[str, int]]:
        """Named bytes of a stage's weights on one rank."""
        layout = self.layout
        ranks = Ranks(layout.tp, layout.pp, layout.ep, stage, pads, self.attention_tp)
        table = self.tables.weights(layout.tp, padded=self._pads_experts())
        held = table.rank(ranks, rotary_itemsize=self.itemsize)
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
        if not self.run.stored_bytes:
            return 1.0
        whole = Ranks(pads=False)
        held = self.tables.weights(1, padded=False).rank(whole, rotary_itemsize=0)
        return self.run.stored_bytes / held.total

    def _pads_experts(self) -> bool:
        return self.scheme.name == "mxfp4" and self.run.engine == "vllm"

    def _absorbed(self, stage: int) -> int:
        """Copies of the up-projections that absorbed latent attention keeps beside the weights."""
        kinds, elements = self.model.order, self.tables.latent_elements
        if not any(elements):
            return 0
        layers = stage_layers(len(kinds), self.layout.pp, stage)
        return sum(elements[kinds[i]] for i in layers) * self.itemsize // self.attention_tp

    def _adapters(self, stage: int) -> int:
        """Slots for LoRA adapters on every layer they change."""
        wanted = self.run.adapters
        if wanted is None:
            return 0
        elements = slot_elements(self.model, self.run.engine, self.layout, stage)
        return wanted.count * wanted.rank * elements * self.itemsize

    def _draft(self, stage: int) -> int:
        """The draft model's weights, which stand on the last stage."""
        drafted = self.tables.drafted
        if drafted is None or stage != self.layout.pp - 1:
            return 0
        return drafted.rank(Ranks(self.layout.tp), rotary_itemsize=self.itemsize).total


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
