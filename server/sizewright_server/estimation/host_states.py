"""What of the model's states passes through host memory under a layout."""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_server.estimation.layout import Layout
from sizewright_server.estimation.offload import placement
from sizewright_server.estimation.optimizers import BYTE, FP32, OptimizerKind, optimizers
from sizewright_server.estimation.states import state_widths
from sizewright_server.estimation.weight_formats import weight_format, weight_formats
from sizewright_server.estimation.workload import CheckpointSave, Training, Workload

#: Weights that are cast to 16 bits before they are gathered and written.
HALF = 2
#: A gradient in host memory, where the optimizer steps there (DeepSpeed's and FSDP's are fp32).
OFFLOADED_GRADIENT_BYTES = 4
#: Page-locked buffers through which states travel to NVMe (DeepSpeed's offload_config.py:
#: buffer_count 4 and 5, buffer_size 1e8 elements).
NVME_OPTIMIZER_BYTES = 4 * 10**8 * 4
NVME_PARAMETER_BYTES = 5 * 10**8 * 2


@dataclass(frozen=True, slots=True)
class HostStates:
    """Bytes of a job's states, as far as the host sees them.

    `checkpoint` is the weights file; `saved` all that a checkpoint holds, optimizer state with it,
    and `rank_saved` one rank's part of it; `offloaded` is what lives in host memory for each rank.
    """

    checkpoint: int
    rank_checkpoint: int
    saved: int
    rank_saved: int
    largest_saved: int
    gathers: bool
    save: CheckpointSave
    offloaded: int = 0
    #: Activation checkpoints of a rank that wait in host memory.
    activations: int = 0


def host_states(
    workload: Workload, layout: Layout, checkpoint_bytes: int, parameters: int, trainable: int
) -> HostStates:
    """The states of a run; `trainable` of its parameters have optimizer state and are saved."""
    run = workload.run
    shards = layout.shard_ranks if layout.zero else 1
    ways = max(1, layout.tp * layout.pp)
    share = checkpoint_bytes // (shards * ways)
    if not isinstance(run, Training):
        return HostStates(checkpoint_bytes, share, 0, 0, 0, False, "none")
    widths = state_widths(run, layout.sharding)
    kind = optimizers()[run.optimizer.name]
    states = sum(rule.count for rule in kind.states)
    width = widths.trained + state_width(kind, widths.state) + widths.master
    save = workload.host.checkpoint_save or ("sharded" if shards > 1 else "full")
    saved = int(trainable * {"full-weights": widths.trained, "half-weights": HALF}.get(save, width))
    rank_saved = saved // (shards * ways)
    return HostStates(
        checkpoint=checkpoint_bytes,
        rank_checkpoint=share,
        saved=saved,
        rank_saved=rank_saved,
        # DeepSpeed keeps each state of a rank as one flat tensor, which torch.save copies whole.
        largest_saved=rank_saved // max(1, states + 1) if layout.sharding == "deepspeed" else 0,
        gathers=save in ("full", "full-weights", "half-weights") and shards * ways > 1,
        save=save,
        offloaded=_offloaded(layout, trainable // (shards * ways), state_width(kind, FP32))
        + _frozen(run, layout, (parameters - trainable) // (shards * ways), widths.stored)
        + _paged(kind, trainable // (shards * ways)),
    )


def state_width(kind: OptimizerKind, width: int) -> float:
    """Mean bytes of optimizer state a parameter, those that grow with its elements."""
    total = 0.0
    for rule in kind.states:
        if rule.of == "quantized":
            total += rule.count * (rule.bits / BYTE + FP32 / rule.block)
        elif rule.of in ("elements", "kronecker"):
            total += rule.count * (rule.bytes or width)
    return total


def nvme_bytes(run: Training, layout: Layout, trainable: int) -> int:
    """What a rank keeps on a local disk: fp32 weights and states, and the weights of the forward.

    Nothing where the layout offloads nothing to NVMe. As `_offloaded` counts on the host; gradients
    pass through buffers (deepspeed/runtime/swap_tensor).
    """
    if not layout.offload.startswith("nvme"):
        return 0
    each = FP32 + state_width(optimizers()[run.optimizer.name], FP32)
    each += 2 * ("parameters" in layout.offload)
    return int(trainable // (layout.shard_ranks * max(1, layout.tp * layout.pp)) * each)


def _paged(kind: OptimizerKind, parameters: int) -> int:
    """States in unified memory, which has its home on the host."""
    return int(parameters * state_width(kind, FP32)) if kind.paged else 0


def _frozen(run: Training, layout: Layout, parameters: int, width: int) -> int:
    """A rank's frozen weights, which leave the GPU with the trained ones and wait on the host."""
    if placement(layout).weights or layout.offload.startswith("nvme"):
        return 0
    base = run.base_weights
    packed = "" if base is None else base.format
    bits = weight_format(packed).bits if packed in weight_formats() else width * BYTE
    return parameters * bits // BYTE


def _offloaded(layout: Layout, parameters: int, states_width: float) -> int:
    """A rank's fp32 weights, states and gradients that the optimizer keeps on the host.

    DeepSpeed's own estimate (runtime/zero/stage3.py) counts 16 B a parameter for Adam, and 2 more
    for parameters that are offloaded too; on NVMe only buffers stay.
    """
    if layout.offload.startswith("nvme"):
        return NVME_OPTIMIZER_BYTES + NVME_PARAMETER_BYTES * ("parameters" in layout.offload)
    if layout.offload == "none":
        return 0
    each = FP32 + states_width + OFFLOADED_GRADIENT_BYTES
    if layout.offload == "optimizer-and-parameters" and layout.sharding == "deepspeed":
        each += 2
    return int(parameters * each * layout.offload_share)
