"""Which parallel layouts a workload may take on a number of GPUs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.layout import Layout, OffloadTarget
from sizewright_server.estimation.layout_checks import (
    legal_tensor_parallel,
    packed_base,
    pipeline_layers,
)
from sizewright_server.estimation.workload import Inference, Training

#: Context parallelism is tried from this many tokens per sample on: below, other dimensions split
#: activations without its exchange of keys and values.
LONG_SEQUENCE = 8192
#: Tokens a rank of a ring keeps at least: with fewer even NVLink takes longer to pass keys and
#: values on than attention over them takes (Liu et al. 2023, Ring Attention, table 2: 1,000 on
#: A100s with NVLink).
RING_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class LegalSizes:
    """Sizes of each dimension that the model and the run allow, 1 first.

    `sp` are the tensor-parallel sizes that also split norms and residuals: they divide the tokens.
    """

    tp: tuple[int, ...]
    pp: tuple[int, ...] = (1,)
    cp: tuple[int, ...] = (1,)
    ep: tuple[int, ...] = (1,)
    sp: tuple[int, ...] = ()
    trains: bool = True


def legal_sizes(architecture: Architecture, run: Training | Inference) -> LegalSizes:
    """The sizes worth trying: pipelines with at least a micro-batch per stage, rings over long
    samples, and all of a model's experts."""
    tp = (1,) if packed_base(run) else legal_tensor_parallel(architecture)
    if isinstance(run, Inference):
        return LegalSizes(tp, trains=False)
    layers, micro = pipeline_layers(architecture), run.gradient_accumulation_steps
    most = min(layers, micro) if len({r.role for r in architecture.runs[1:-1]}) == 1 else 1
    cp: tuple[int, ...] = (1,)
    rings = run.attention != "eager" and not (architecture.chooses_keys or architecture.recurrent)
    if run.seq_len >= LONG_SEQUENCE and rings:
        longest = run.seq_len // RING_TOKENS
        cp = tuple(c for c in _powers(longest) if run.seq_len % (2 * c) == 0)
    experts = max(r.sizes.experts for r in architecture.runs)
    ep = tuple(e for e in _powers(experts) if experts % e == 0) if experts else (1,)
    sp = tuple(size for size in tp if size > 1 and run.seq_len > 1 and run.seq_len % size == 0)
    if run.loop == "trainer":
        # transformers' Trainer has no pipelines, no sequence parallelism and no shared-out experts.
        return LegalSizes(tp, cp=cp)
    return LegalSizes(tp, _powers(most), cp, ep, sp)


def _powers(most: int) -> tuple[int, ...]:
    return tuple(1 << i for i in range(max(most, 1).bit_length()))


@lru_cache(maxsize=4096)
def possible_layouts(legal: LegalSizes, gpus: int, gpus_per_node: int) -> tuple[Layout, ...]:
    """Every layout over `gpus`, the simplest first: tensor parallelism within a node, then the data
    parallel ranks, then rings, experts and pipelines.

    Training tries each ZeRO stage over the data-parallel ranks (1 and 2 by DeepSpeed, 3 by FSDP2),
    FSDP2 with every other dimension, and there norms and residuals split over tensor-parallel
    ranks as well; inference tries replicas.
    """
    found = []
    for tp in legal.tp:
        if tp > gpus_per_node or gpus % tp:
            continue
        dp = gpus // tp
        found.append(Layout(dp=dp, tp=tp))
        if legal.trains and dp > 1:
            found += [
                Layout(dp=dp, zero=1, tp=tp, sharding="deepspeed"),
                Layout(dp=dp, zero=2, tp=tp, sharding="deepspeed"),
                Layout(dp=dp, zero=3, tp=tp, sharding="fsdp2"),
            ]
    if legal.trains:
        for plain in [layout for layout in found if layout.sharding == "fsdp2"]:
            if plain.tp not in legal.sp:
                found += _further(plain, legal)
                continue
            split = replace(plain, sequence_parallel=True)
            found += [split, *_further(split, legal)]
    return tuple(found)


def _further(plain: Layout, legal: LegalSizes) -> list[Layout]:
    """An FSDP2 layout with its data-parallel ranks given to one more dimension each."""
    ranks = plain.dp
    rings = [
        replace(plain, dp=ranks // c, cp=c, context_method="ring")
        for c in legal.cp
        if c > 1 and ranks % c == 0
    ]
    experts = [replace(plain, ep=e) for e in legal.ep if e > 1 and ranks * plain.tp % e == 0]
    stages = [_pipeline(plain, ranks // p, p) for p in legal.pp if p > 1 and ranks % p == 0]
    return [*rings, *experts, *stages]


def _pipeline(plain: Layout, ranks: int, stages: int) -> Layout:
    """A layout with its data-parallel ranks in stages; what has one rank left is not sharded."""
    if ranks > 1:
        return replace(plain, dp=ranks, pp=stages)
    return replace(plain, dp=1, pp=stages, zero=0, sharding="ddp")


def offloading_layouts(offload: OffloadTarget, gpus: int) -> tuple[Layout, ...]:
    """Layouts in which DeepSpeed keeps states off the GPU; stage 3 for parameters, and for NVMe."""
    stages = (2, 3) if offload == "optimizer" else (3,)
    return tuple(
        Layout(dp=gpus, zero=stage, sharding="deepspeed", offload=offload) for stage in stages
    )


def layouts_of_run(
    run: Training | Inference, legal: LegalSizes, gpus: int, gpus_per_node: int
) -> tuple[Layout, ...]:
    """The run's own layout where it is explicit and takes just these GPUs; else every one.

    An explicit layout with dp 0 fills the GPUs. An explicit one may spread tensor parallelism over
    nodes.
    """
    explicit = run.layout
    offload = run.offload if isinstance(run, Training) else "none"
    if explicit is None and offload != "none":
        return offloading_layouts(offload, gpus)
    if explicit is not None and offload != "none":
        explicit = replace(explicit, offload=offload)
    if explicit is None:
        return possible_layouts(legal, gpus, gpus_per_node)
    others = explicit.tp * explicit.pp * explicit.cp
    if explicit.dp == 0 and gpus % others == 0:
        explicit = replace(explicit, dp=gpus // others)
    return (explicit,) if explicit.gpus == gpus else ()
