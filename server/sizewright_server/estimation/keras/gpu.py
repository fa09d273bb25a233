"""GPU memory of a Keras model on TensorFlow or torch: one replica on each GPU of a node."""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.parts import EXACT, part, total
from sizewright_server.estimation.keras.workload import KerasWorkload
from sizewright_server.estimation.memory import ByteRange, GpuReadings, Part, Phase, PoolEstimate
from sizewright_server.estimation.optimizers import FP32
from sizewright_server.estimation.runtime import DeviceOverhead

#: TensorFlow's BFC allocator rounds each tensor up to this (common_runtime/bfc_allocator.h).
BFC_ALIGNMENT_BYTES = 256
#: Its first region when it grows; each further one is twice the last (bfc_allocator.cc, Extend).
BFC_FIRST_REGION_BYTES = 2 * 2**20
#: Most of a convolution's scratch that TensorFlow allows (TF_CUDNN_WORKSPACE_LIMIT_IN_MB).
CUDNN_LIMIT_BYTES = 4 * 2**30
SOURCE = "Keras 3 layers; TensorFlow core/common_runtime/bfc_allocator.cc"


@dataclass(frozen=True, slots=True)
class ReplicaMemory:
    """What one replica holds: whole through the run, and in a step."""

    kept: tuple[Part, ...]
    step: tuple[Part, ...]

    @property
    def peak(self) -> ByteRange:
        """Live tensors at the worst moment of a step."""
        return total((*self.kept, *self.step))


def replica_memory(work: KerasWorkload, replicas: int) -> ReplicaMemory:
    """The tensors of one replica of `replicas`, cuDNN's scratch with them."""
    net = work.network
    kept = [part("weights", _aligned(work), "variables x 4 B, 256 B each", "", SOURCE, EXACT)]
    step = [
        part("activations", work.activation_bytes, "batch x elements alive", "", SOURCE),
        part("batch", 2 * work.batch_bytes, "this batch and the next", "", SOURCE),
        *_scratch(work),
    ]
    if work.mixed:
        size = net.parameters * FP32 // 2
        text = "16-bit casts of the variables"
        source = "keras AutoCastVariable: a cast at each use, kept for its backward pass"
        step.append(part("cast-weights", size, text, f"{size:,} B", source))
    if work.training:
        size = int(net.trainable * work.states_width)
        text = "parameters x optimizer slots"
        numbers = f"{net.trainable:,} x {work.states_width:g} B"
        kept.append(part("optimizer-state", size, text, numbers, "keras.optimizers", EXACT))
        reduced = net.trainable * FP32
        numbers = f"{net.trainable:,} x 4 B"
        step.append(part("gradients", reduced, "parameters x 4 B", numbers, SOURCE))
        if replicas > 1:
            text = "gradients packed for the all-reduce, and its result"
            source = "tf.distribute NcclAllReduce: gradients concatenated into one pack"
            step.append(part("reduction-buckets", 2 * reduced, text, numbers, source))
    return ReplicaMemory(tuple(kept), tuple(step))


def _aligned(work: KerasWorkload) -> int:
    unit = BFC_ALIGNMENT_BYTES
    trained = sum(-(-size * FP32 // unit) * unit for size in work.network.weight_elements)
    return trained + (work.network.parameters - work.network.trainable) * FP32


def _scratch(work: KerasWorkload) -> tuple[Part, ...]:
    """cuDNN's workspace for the largest convolution, as autotuning chose its algorithm."""
    sizes = [
        sum(work.network.nodes[at].elements for at in node.inputs) + node.elements
        for node in work.network.convolutions
    ]
    if not sizes:
        return ()
    size = max(sizes) * work.batch * work.activation_width
    span = ByteRange(0, min(size, CUDNN_LIMIT_BYTES), min(8 * size, CUDNN_LIMIT_BYTES))
    text = "scratch of the largest convolution: as its input and output, up to 4 GiB"
    source = "TF_CUDNN_WORKSPACE_LIMIT_IN_MB, 4096 by default"
    return (Part("cudnn-workspace", span, text, f"{size:,} B", source, "low"),)


def reserved(work: KerasWorkload, allocated: ByteRange) -> ByteRange:
    """What the allocator holds at least to run: its peak, and what it cannot use between tensors.

    By default TensorFlow takes nearly all of a GPU when it starts; with memory growth its regions
    double, and shrink to what is left where doubling fails. Neither needs more than this.
    """
    share = constant("network", "bfc_fragmentation")
    return ByteRange(
        allocated.low_bytes,
        int(allocated.best_bytes * (1 + share.value)),
        int(allocated.high_bytes * (1 + share.high)),
    )


def grown_bytes(peak_bytes: int) -> int:
    """Regions that memory growth has mapped for a peak, on a GPU with room: 2, 4, 8 ... MiB."""
    mapped, region = 0, BFC_FIRST_REGION_BYTES
    while mapped < peak_bytes:
        mapped += region
        region *= 2
    return mapped


def gpu_pool(work: KerasWorkload, replicas: int, overhead: DeviceOverhead) -> PoolEstimate:
    """The pool of each replica's GPU."""
    memory = replica_memory(work, replicas)
    allocated = memory.peak
    held = reserved(work, allocated)
    runtime = overhead.parts(int(replicas > 1), replicas)
    slack = Part(
        "allocator-slack",
        ByteRange(*(getattr(held, b) - getattr(allocated, b) for b in _BOUNDS)),
        "what the allocator cannot use between tensors",
        f"{held.best_bytes - allocated.best_bytes:,} B",
        constant("network", "bfc_fragmentation").source,
        "low",
    )
    name = "step" if work.training else "forward"
    load = (*memory.kept, *runtime)
    parts = (*memory.kept, *memory.step, slack, *runtime)
    device = held + total(runtime)
    phases = (Phase("load", total(load), load), Phase(name, device, parts))
    readings = GpuReadings(allocated, held, device)
    return PoolEstimate("gpu", "every replica", phases, name, device, readings)


_BOUNDS = ("low_bytes", "best_bytes", "high_bytes")
