"""Host memory of a PyTorch process that computes on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.estimate import host_estimate
from sizewright_server.estimation.classical.network_stages import F4, Network
from sizewright_server.estimation.classical.parts import (
    EXACT,
    Moment,
    part,
)
from sizewright_server.estimation.host_states import state_width
from sizewright_server.estimation.memory import MemoryEstimate, Part
from sizewright_server.estimation.optimizers import optimizers
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation

#: States an optimizer keeps for each parameter, and tensors its step makes of the largest one
#: (torch.optim, for-loop: Adam's denominator and its quotient) or of all (foreach).
ADAM_STATES = 2
TORCH = "torch 2.13: aten/native on the CPU, torch/optim"


@dataclass(frozen=True, slots=True)
class NetworkJob:
    """A network that trains or infers in one process on the CPU. Bytes where named so."""

    framework: str
    network: Network
    batch: int
    training: bool = True
    optimizer: str = "sgd"
    foreach: bool = False
    mixed: bool = False
    data_bytes: int = 0


def optimizer_states(name: str) -> float:
    """Tensors an optimizer keeps for each parameter. Raises UnsupportedWorkload."""
    if name not in optimizers():
        words = f"must be one of {', '.join(sorted(optimizers()))}, not {name!r}"
        raise UnsupportedWorkload(Violation("workload.training.optimizer.name", words))
    return state_width(optimizers()[name], F4) / F4


def parameters_part(count: int, copies: float, name: str, source: str) -> Part:
    """So many float32 copies of all parameters."""
    numbers = f"{copies:g} x {count:,} x 4 B"
    return part(name, copies * count * F4, "copies x parameters x 4 B", numbers, source, EXACT)


def data_part(size: int) -> tuple[Part, ...]:
    """The samples as an array in memory."""
    if not size:
        return ()
    return (part("dataset", size, "samples x elements x 4 B", f"{size:,} B", "an array", EXACT),)


def heap_part(dynamic: int) -> Part:
    """Freed blocks below glibc's mmap threshold that the next tensors do not fit."""
    share = constant("network", "heap_fragmentation")
    return share.part("heap-fragmentation", "share of what comes and goes", dynamic)


def torch_process() -> tuple[Part, ...]:
    """The process after importing torch."""
    return (constant("process", "pytorch").part("process", "interpreter and torch"),)


def first_step(*, training: bool) -> tuple[Part, ...]:
    """What the first optimizer and the first pass import and start."""
    forward = constant("process", "pytorch_forward").part("first-pass", "kernels, threads")
    if not training:
        return (forward,)
    text = "torch._dynamo, which every optimizer imports"
    return (forward, constant("process", "pytorch_optimizer").part("first-optimizer", text))


def estimate_torch(job: NetworkJob, *, beside: tuple[Part, ...] = ()) -> MemoryEstimate:
    """Peak of a PyTorch process that trains or infers on the CPU, `beside` its loaders.

    Raises UnsupportedWorkload.
    """
    net, source = job.network, TORCH
    weights = parameters_part(net.parameters, 1, "parameters", source)
    held = (*torch_process(), *data_part(job.data_bytes), *beside, weights)
    moments = [Moment("load", held)]
    started = (*held, *first_step(training=job.training))
    elements = net.peak_elements(training=job.training)
    width = F4 // 2 if job.mixed else F4
    size = elements * job.batch * width
    text = "batch x elements alive at the worst moment"
    acts = part("activations", size, text, f"{job.batch:,} x {elements:,} x {width} B", source)
    heap = heap_part(size)
    cast = (parameters_part(net.parameters, 1, "cast-parameters", source),) if job.mixed else ()
    halves = tuple(part(c.name, c.size.best_bytes / 2, c.formula, c.numbers, source) for c in cast)
    if not job.training:
        moments.append(Moment("forward", (*started, *halves, acts, heap)))
        return host_estimate(tuple(moments), f"pytorch {net.kind}", "process")
    states = parameters_part(
        net.parameters, optimizer_states(job.optimizer), "optimizer-state", source
    )
    gradients = parameters_part(net.parameters, 1, "gradients", source)
    batch = part("batch", net.inputs * job.batch * F4, "batch x inputs x 4 B", "", source)
    late, step = _backward(job, acts), _step(job)
    busy = gradients.size.best_bytes
    moments += [
        Moment("forward", (*started, states, *halves, acts, heap)),
        Moment(
            "backward",
            (*started, states, gradients, *halves, late, heap_part(busy + late.size.best_bytes)),
        ),
        Moment(
            "optimizer-step",
            (
                *started,
                states,
                gradients,
                batch,
                step,
                heap_part(busy + size + step.size.best_bytes),
            ),
        ),
    ]
    return host_estimate(tuple(moments), f"pytorch {net.kind}", "process")


def _backward(job: NetworkJob, acts: Part) -> Part:
    """When all gradients are there, what is left of the activations is small.

    For networks whose saved tensors are small beside their parameters the end of the pass is the
    peak: gradients, and the first stage's saved tensors with its gradients.
    """
    first = job.network.stages[0]
    elements = job.network.inputs + first.saved + 2 * first.output
    size = min(acts.size.best_bytes, elements * job.batch * F4)
    text = "input, first stage's saved tensors and gradients"
    return part("activations", size, text, f"{job.batch:,} x {elements:,} x 4 B", TORCH)


def _step(job: NetworkJob) -> Part:
    """Temporaries of the step: two of the largest tensor, or of all under foreach."""
    count = job.network.parameters if job.foreach else 2 * job.network.largest_parameter
    if optimizer_states(job.optimizer) < ADAM_STATES:
        count = 0
    text = "2 x largest parameter x 4 B, or all of them under foreach"
    return part("step-temporaries", count * F4, text, f"{count:,} x 4 B", TORCH)
