"""What FSDP and its device mesh are told, in accelerate's words."""

from __future__ import annotations

from typing import Any

from sizewright.v1 import estimate_pb2
from sizewright_client.export.ledger import Ledger
from sizewright_client.export.selection import ExportError, Selection

#: How torch's rings exchange keys and values, by our names.
EXCHANGES = {"": "alltoall", "ring": "alltoall", "all-gather": "allgather"}


def fsdp_config(selection: Selection, said: Ledger) -> dict[str, Any]:
    """`fsdp_config` of accelerate; `said` is the ledger of the stated layout."""
    layout, run = selection.plan.layout, selection.workload.training
    version = 2 if layout.implementation == "fsdp2" else 1
    full = selection.workload.host.checkpoint_save in (
        "full",
        "full-weights",
        "half-weights",
    )
    values: dict[str, Any] = {
        "fsdp_version": version,
        **_resharding(selection, version),
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_activation_checkpointing": Ledger("training", run).peek("activation_checkpointing")
        == "full",
        "fsdp_state_dict_type": "FULL_STATE_DICT" if full else "SHARDED_STATE_DICT",
    }
    if said.take("offload_activations"):
        values["fsdp_activation_checkpointing_offload"] = True
    said.describes("gradient_as_bucket_view")
    if said.peek("fsdp.wrap") == "block":
        said.take("fsdp.wrap")
    if version == 2:
        return values
    prefetched = not said.states("fsdp.backward_prefetch") or said.peek("fsdp.backward_prefetch")
    values["fsdp_backward_prefetch"] = "BACKWARD_PRE" if prefetched else "NO_PREFETCH"
    values["fsdp_forward_prefetch"] = said.take("fsdp.forward_prefetch")
    values["fsdp_use_orig_params"] = said.take("fsdp.use_orig_params")
    values["fsdp_sync_module_states"] = said.take("fsdp.sync_module_states")
    said.describes("fsdp.backward_prefetch")
    if said.peek("fsdp.limit_all_gathers"):
        said.take("fsdp.limit_all_gathers")
    return values


def _resharding(selection: Selection, version: int) -> dict[str, Any]:
    """FSDP2 takes a flag; FSDP1 a strategy, by name."""
    layout = selection.plan.layout
    keeps = layout.keep_gathered_after_forward or layout.zero < 3
    if version == 2:
        return {"fsdp_reshard_after_forward": not keeps}
    if layout.tp > 1 or layout.cp > 1:
        raise ExportError("accelerate combines FSDP with tp or cp as fsdp2 alone, not as fsdp1")
    if _replicas(layout) == 1:
        return {"fsdp_sharding_strategy": "SHARD_GRAD_OP" if keeps else "FULL_SHARD"}
    if layout.shard_size != selection.ranks:
        raise ExportError(
            f"FSDP1 shards over the {selection.ranks} ranks of a node or over all; "
            f"shard_size {layout.shard_size} needs implementation: fsdp2"
        )
    return {"fsdp_sharding_strategy": "HYBRID_SHARD_ZERO2" if keeps else "HYBRID_SHARD"}


def parallelism_config(layout: estimate_pb2.Layout, said: Ledger) -> dict[str, Any]:
    """`parallelism_config`: the mesh, where there is more than plain sharding.

    Replicas, tensor and context parallelism. Raises ExportError for what accelerate does not have.
    """
    for name in ("pp", "ep"):
        if getattr(layout, name) > 1:
            raise ExportError(
                f"accelerate's configuration says nothing of {name} {getattr(layout, name)}; use "
                "torchrun and set it in the training code"
            )
    if layout.sequence_parallel:
        raise ExportError("accelerate's configuration says nothing of sequence_parallel")
    replicas = _replicas(layout)
    if layout.implementation != "fsdp2" or max(layout.tp, layout.cp, replicas) == 1:
        return {}
    if layout.dp % replicas:
        raise ExportError(
            f"{replicas} replicas do not divide dp {layout.dp}: accelerate shards over whole "
            "groups of context-parallel ranks"
        )
    sizes: dict[str, Any] = {
        "dp_replicate_size": replicas,
        "dp_shard_size": layout.dp // replicas,
        "tp_size": layout.tp,
        "cp_size": layout.cp,
    }
    if layout.cp > 1:
        method = said.take("context_parallel_method")
        if method not in EXCHANGES:
            raise ExportError(f"accelerate's FSDP has no context_parallel_method: {method}")
        sizes |= {"cp_backend": "torch", "cp_comm_strategy": EXCHANGES[method]}
    return {f"parallelism_config_{name}": value for name, value in sizes.items()}


def _replicas(layout: estimate_pb2.Layout) -> int:
    """Copies of the sharded states: 1 where all ranks share one."""
    ranks = layout.dp * layout.cp
    return ranks // layout.shard_size if layout.shard_size else 1


def sharded_by_fsdp(layout: estimate_pb2.Layout) -> bool:
    """Whether the plan's states are sharded by FSDP."""
    return layout.implementation.startswith("fsdp") and layout.zero > 0


def as_environment(settings: dict[str, Any]) -> dict[str, str]:
    """Settings as the variables through which accelerate hands them to its processes."""
    return {
        name.upper(): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in settings.items()
    }
