"""NCCL communicators of a layout; `data/runtime.json` says what each costs a rank."""

from __future__ import annotations

from sizewright_server.estimation.workload import Inference, Layout, Training


def communicators(layout: Layout, run: Training | Inference) -> int:
    """NCCL communicators a rank takes part in: one for each parallel dimension above 1.

    Replicas that infer do not speak with each other. A group of data- and context-parallel ranks
    reduces gradients; hybrid sharding has one of shards and one of replicas.
    """
    if not isinstance(run, Training):
        return int(layout.tp > 1)
    sizes = (layout.dp * layout.cp, layout.tp, layout.pp, layout.ep)
    exchanged = int(layout.cp > 1 and layout.dp > 1)
    hybrid = int(1 < layout.shard_ranks < layout.dp * layout.cp)
    return sum(size > 1 for size in sizes) + exchanged + hybrid
