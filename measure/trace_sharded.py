"""Prints one rank's exact tensor memory under FSDP1 or FSDP2.

DDP is left out: its reducer is C++ and needs real tensors. A fake process group stands in for the
other ranks: collectives return at once, with tensors of the right sizes, so that a rank allocates
and frees what it would beside real ones. A row is that of `trace_model.py` with the layout under
`dist`:

    {"library": "fsdp2", "ranks": 8, "shard": 4, "reshard": true, "param_dtype": "bf16",
     "reduce_dtype": "fp32", "wrap": "block-and-tables", ...}
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

# isort: split
import cuda_guard  # noqa: F401  (before torch)

# isort: split
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

import models
import trace_model
import workloads
from fake_cuda import DTYPES, pretend_gpu
from memory_trace import MemoryTrace


class Event:
    """A CUDA event that has happened."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def record(self, *_args: Any) -> Event:
        return self

    def wait(self, *_args: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True


class Stream(Event):
    """A CUDA stream that runs everything at once."""

    device = torch.device("cuda", 0)
    device_index, device_type, stream_id, priority = 0, 1, 0, 0

    def wait_event(self, *_args: Any) -> None:
        pass

    def wait_stream(self, *_args: Any) -> None:
        pass

    def record_event(self, *_args: Any) -> Event:
        return Event()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_args: Any) -> None:
        pass


@contextmanager
def streams() -> Iterator[None]:
    """Streams and events of a GPU, for libraries that order their work by them."""
    with ExitStack() as stack:
        for name, answer in (
            ("Stream", Stream),
            ("Event", Event),
            ("current_stream", lambda *_: Stream()),
            ("default_stream", lambda *_: Stream()),
            ("stream", lambda given: given),
            ("current_device", lambda: 0),
            ("device_count", lambda: 1),
            ("set_device", lambda *_: None),
            ("synchronize", lambda *_: None),
            ("is_available", lambda: True),
            ("is_initialized", lambda: True),
        ):
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(torch.Tensor, "record_stream", return_value=None))
        yield


@contextmanager
def resizing(trace: MemoryTrace) -> Iterator[None]:
    """Storages that are emptied and filled again count as freed and allocated."""
    resize = torch.UntypedStorage.resize_

    def resized(storage: Any, size: int) -> Any:
        result = resize(storage, size)
        trace.resized(storage)
        return result

    def typed_resized(storage: Any, size: int) -> Any:
        return resized(storage._untyped_storage, size * storage._element_size())

    with (
        mock.patch.object(torch.UntypedStorage, "resize_", resized),
        mock.patch.object(torch.TypedStorage, "_resize_", typed_resized),
    ):
        yield


def blocks_of(model: Any) -> list[torch.nn.Module]:
    """The transformer blocks of a decoder or encoder."""
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    return list(max(lists, key=len))


def tables_of(model: Any) -> list[torch.nn.Module]:
    """Embedding and head."""
    found = [model.get_input_embeddings(), model.get_output_embeddings()]
    return [module for module in found if module is not None]


def mesh_of(layout: dict[str, Any]) -> Any:
    """All ranks, or replicas of shards."""
    ranks, shard = layout["ranks"], layout.get("shard", 0)
    with unset_fake_temporarily():
        if shard:
            names = ("replicas", "shards")
            return init_device_mesh("cuda", (ranks // shard, shard), mesh_dim_names=names)
        return init_device_mesh("cuda", (ranks,))


def fsdp2(model: Any, layout: dict[str, Any]) -> Any:
    """fully_shard over each block, and over the root."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(
        param_dtype=DTYPES[layout["param_dtype"]] if layout.get("param_dtype") else None,
        reduce_dtype=DTYPES[layout["reduce_dtype"]] if layout.get("reduce_dtype") else None,
    )
    how = {
        "mesh": mesh_of(layout),
        "mp_policy": policy,
        "reshard_after_forward": layout.get("reshard", True),
    }
    units = blocks_of(model)
    if layout.get("wrap") == "block-and-tables":
        units += tables_of(model)
    for unit in units:
        fully_shard(unit, **how)
    fully_shard(model, **how)
    return model


def fsdp1(model: Any, layout: dict[str, Any]) -> Any:
    """FullyShardedDataParallel with a policy that wraps blocks."""
    from torch.distributed import fsdp

    strategies = {
        True: fsdp.ShardingStrategy.FULL_SHARD,
        False: fsdp.ShardingStrategy.SHARD_GRAD_OP,
    }
    kinds = {type(block) for block in blocks_of(model)}
    width = DTYPES[layout["param_dtype"]] if layout.get("param_dtype") else None
    reduce = DTYPES[layout["reduce_dtype"]] if layout.get("reduce_dtype") else None
    prefetch = fsdp.BackwardPrefetch.BACKWARD_PRE if layout.get("backward_prefetch", True) else None
    return fsdp.FullyShardedDataParallel(
        model,
        sharding_strategy=strategies[layout.get("reshard", True)],
        auto_wrap_policy=fsdp.wrap.ModuleWrapPolicy(kinds),
        mixed_precision=fsdp.MixedPrecision(param_dtype=width, reduce_dtype=reduce),
        backward_prefetch=prefetch,
        forward_prefetch=layout.get("forward_prefetch", False),
        limit_all_gathers=layout.get("limit_all_gathers", True),
        use_orig_params=layout.get("use_orig_params", False),
        sync_module_states=layout.get("sync_module_states", False),
        device_id=0,
    )


LIBRARIES = {"fsdp2": fsdp2, "fsdp1": fsdp1}


def trace_sharded(workload: dict[str, Any]) -> tuple[dict[str, Any], MemoryTrace]:
    """Runs the workload as rank 0; returns its figures and the trace with every event."""
    layout = workload["dist"]
    dist.init_process_group("fake", rank=0, world_size=layout["ranks"], store=FakeStore())
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(pretend_gpu())
        trace = stack.enter_context(MemoryTrace())
        model = models.build_model(workload)
        config = model.config
        # Only now: transformers asks whether there is a GPU, and would use it.
        stack.enter_context(streams())
        stack.enter_context(resizing(trace))
        model = LIBRARIES[layout["library"]](model, layout)
        gc.collect()
        load = trace.peak.bytes
        resident = trace.live_bytes
        trace.peak.bytes = 0
        trace.phase_peaks.clear()
        trace.modules.watch(model)
        if not hasattr(model, "config"):
            model.config = config
        try:
            figures = workloads.train(workload, model, trace)
        finally:
            trace.modules.close()
            trace.stop()
    dist.destroy_process_group()
    return {
        "load_peak_bytes": load,
        "resident_bytes": resident,
        "peak_bytes": trace.peak.bytes,
        "peak_phase": trace.peak.phase,
        "peak_step": trace.peak.step,
        "breakdown": trace.peak.breakdown,
        "phase_peaks": {f"{s}/{p}": size for (s, p), size in trace.phase_peaks.items()},
        "optimizer_state_bytes": figures["optimizer_state_bytes"],
    }, trace


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", help="file with a row or a workload, or inline JSON")
    parser.add_argument("--events", type=Path, help="write the event log here")
    arguments = parser.parse_args()
    figures, trace = trace_sharded(trace_model.read_workload(arguments.row))
    if arguments.events:
        trace_model.write_events(trace, arguments.events)
    json.dump(figures, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main())
