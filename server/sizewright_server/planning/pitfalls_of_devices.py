"""Pitfalls of GPUs: batches that waste or starve them, copies on each, links between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sizewright_catalog.speeds import speeds
from sizewright_catalog.values import Machine
from sizewright_server.estimation.host_states import state_width
from sizewright_server.estimation.memory import Notice
from sizewright_server.estimation.optimizers import FP32, optimizers
from sizewright_server.estimation.states import HALF, state_widths
from sizewright_server.planning.devices import arm64_words
from sizewright_server.planning.machine_speed import pcie_band
from sizewright_server.planning.situation import Situation, gib, seconds

#: Below this share of GPU memory at the high estimate much of it is free.
MOSTLY_FREE = 0.5
#: A product with so many times the operations a byte that a device can feed is bound by computing.
COMPUTE_BOUND = 2.0
#: Below this share of them it waits for memory.
MEMORY_BOUND = 0.5
#: Of a machine that is larger than its job.
LITTLE = 0.25
#: Copies of states that take a smaller share of a GPU are no news.
LARGE_COPY = 0.25
#: Layers whose weights are gathered over PCIe or a network for less than this hide behind the work.
LONG_SECONDS = 0.5
#: Tokens of the largest batches of Llama 3 405B (Grattafiori et al. 2024, section 3.4.1).
LARGEST_BATCH_TOKENS = 16 * 2**20
#: Weights are gathered for the forward and the backward pass, gradients reduced (Rajbhandari 2020).
VOLUMES = 3


def _balance(it: Situation) -> tuple[float, float] | None:
    """Operations a byte of the largest product of a pass, and those the device needs to be busy.

    A feed-forward product of M tokens with h x 4h weights moves 2 (M h + 4 h^2 + 4 M h) bytes.
    """
    device, model = it.target.device, it.model
    speed = speeds().get(device.name) if device is not None else None
    if model is None or speed is None or not speed.memory_bytes_per_second:
        return None
    if it.training is not None:
        rows, kind = it.training.rows, it.training.precision.removesuffix("-mixed")
    else:
        assert it.inference is not None
        rows, kind = it.inference.batch, it.inference.weight_dtype
    peak = speed.flops.get(kind)
    if not peak:
        return None
    tokens, hidden = rows * model.work.positions, model.work.hidden
    width = FP32 if kind in ("fp32", "tf32") else HALF
    operations = 2 * tokens * hidden * 4 * hidden
    moved = width * (tokens * hidden + 4 * hidden**2 + 4 * tokens * hidden)
    return operations / moved, peak / speed.memory_bytes_per_second


def _free_memory(it: Situation) -> Iterator[Notice]:
    """What more memory, or a larger batch, would do where much of it is free."""
    gpu, balance = it.pool("gpu"), _balance(it)
    if gpu is None or balance is None or it.used("gpu") >= MOSTLY_FREE:
        return
    free, (product, needed) = gib(gpu.usable_bytes - gpu.peak.high_bytes), balance
    device = it.target.device.name if it.target.device else ""
    numbers = f"{product:,.0f} operations a byte, where the {device} needs {needed:,.0f} to be busy"
    if it.inference is not None and it.inference.new_tokens:
        return
    if product >= COMPUTE_BOUND * needed:
        words = (
            f"Computing binds, not memory: a pass does {numbers}. The {free} of each GPU that stay "
            "free would not make it faster, nor would a larger batch."
        )
        yield Notice("compute-binds", words)
    elif product < MEMORY_BOUND * needed:
        words = (
            f"The batch starves the GPU: a pass does {numbers}. A larger one costs little time "
            f"until then; {free} of each GPU are free for it."
        )
        yield Notice("batch-starves-gpu", words)
    else:
        words = (
            f"{free} of each GPU stay free; a larger batch would use them for speed ({numbers})."
        )
        yield Notice("batch-wastes-memory", words)


def _decoding(it: Situation) -> Iterator[Notice]:
    """Each new token reads every weight, whatever the batch."""
    run, device = it.inference, it.target.device
    speed = speeds().get(device.name) if device is not None else None
    if run is None or not run.new_tokens or speed is None or device is None:
        return
    peak = speed.flops.get(run.weight_dtype)
    if not peak or not speed.memory_bytes_per_second:
        return
    needed = peak / speed.memory_bytes_per_second
    if run.batch < MEMORY_BOUND * needed:
        words = (
            f"Decoding reads every weight for each token: at {run.batch} sequences the bandwidth "
            f"of the {device.name} binds, and its arithmetic is used to "
            f"{max(100 * run.batch / needed, 1):.0f} %. More sequences at once cost little time."
        )
        yield Notice("bandwidth-binds", words)


def _replicated(it: Situation) -> Iterator[Notice]:
    """Data parallelism alone copies every state to every GPU."""
    run, model, gpu = it.training, it.model, it.pool("gpu")
    if run is None or model is None or gpu is None or it.layout.zero or it.layout.dp == 1:
        return
    widths = state_widths(run, it.layout.sharding)
    states = state_width(optimizers()[run.optimizer.name], widths.state)
    trained = model.trainable_parameter_count
    split = it.layout.tp * it.layout.pp
    frozen = (model.parameter_count - trained) * widths.stored
    each = trained * (widths.trained + widths.gradient + states + widths.master)
    copy = int((frozen + each) / split)
    if copy < LARGE_COPY * gpu.usable_bytes:
        return
    saved = copy - copy // it.layout.dp
    words = (
        f"Each of {it.layout.dp} data-parallel GPUs holds its own {gib(copy)} of weights, "
        f"gradients and optimizer state: more GPUs take nothing off one. Sharded over them "
        f"(ZeRO-3, FSDP) that is {gib(saved)} less on each."
    )
    yield Notice("states-on-every-gpu", words)


def _global_batch(it: Situation) -> Iterator[Notice]:
    """Every data-parallel rank adds to the batch of an optimizer step, wanted or not."""
    run, model, ranks = it.training, it.model, it.layout.dp
    if run is None or model is None or ranks == 1 or not run.seq_len:
        return
    each = run.micro_batch * model.work.tokens * ranks
    steps = run.gradient_accumulation_steps
    if each * steps <= LARGEST_BATCH_TOKENS:
        return
    fewer = LARGEST_BATCH_TOKENS // each
    words = (
        f"An optimizer step takes {run.micro_batch * steps * ranks:,} samples, "
        f"{each * steps / 1e6:,.0f} M tokens: what the request gives a rank, on {ranks:,} "
        "data-parallel ranks. Batches of Llama 3 405B had 16 M at most; larger ones learn less "
        "from each token."
    )
    if 1 <= fewer < steps:
        words += f" 'gradient_accumulation_steps: {fewer}' keeps to that."
    yield Notice("large-global-batch", words)


def _tensor_parallel_over_pcie(it: Situation) -> Iterator[Notice]:
    device = it.target.device
    if it.layout.tp > 1 and device is not None and not device.link_gb_per_second:
        words = (
            f"Tensor parallelism over {it.layout.tp} {device.name}, which have no direct link, "
            "runs over PCIe, which is slow."
        )
        yield Notice("tensor-parallel-over-pcie", words)


def _tensor_parallel_across_nodes(it: Situation) -> Iterator[Notice]:
    if it.layout.tp > it.ranks_per_node:
        words = "Tensor parallelism crosses nodes: every layer waits for the network."
        yield Notice("tensor-parallel-across-nodes", words)


def _gathered(it: Situation) -> Iterator[Notice]:
    """Sharded weights that travel over PCIe in every pass."""
    device, model, layout = it.target.device, it.model, it.layout
    if it.training is None or model is None or device is None or layout.zero < 3:
        return
    if device.link_gb_per_second or layout.dp == 1:
        return
    size = VOLUMES * HALF * model.parameter_count / (layout.tp * layout.pp)
    speed = speeds().get(device.name)
    band = pcie_band(speed.pcie_generation if speed else 0)
    fast, slow = size / band["high"], size / band["low"]
    if fast < LONG_SECONDS:
        return
    words = (
        f"Sharded weights and gradients move {gib(size)} over PCIe, as {device.name} have no link, "
        f"for every pass of a micro-batch: {seconds(fast, slow)}, less what hides behind the work."
    )
    yield Notice("sharding-over-pcie", words)


def _arm_builds(it: Situation) -> Iterator[Notice]:
    """GPUs beside processors for which a package may have no build."""
    device = it.target.device
    if it.target.cpu_architecture == "arm64" and device is not None and it.network is not None:
        words = arm64_words(device)
        if words:
            yield Notice("no-arm64-build", words)


def _oversized(it: Situation) -> Iterator[Notice]:
    """The asker's own machine, of which little is used; offers are ranked by price anyway."""
    shares = [it.used(pool.pool) for pool in it.pools]
    if not isinstance(it.target, Machine) or not shares or max(shares) >= LITTLE:
        return
    needs = " and ".join(
        f"{gib(pool.peak.high_bytes)} of {'each GPU' if pool.pool == 'gpu' else 'host memory'}"
        for pool in it.pools
    )
    words = f"The machine is larger than the job: it uses at most {needs}, {max(shares):.0%} of it."
    yield Notice("over-provisioned", words)


DEVICES: tuple[Callable[[Situation], Iterator[Notice]], ...] = (
    _free_memory,
    _decoding,
    _replicated,
    _global_batch,
    _tensor_parallel_over_pcie,
    _tensor_parallel_across_nodes,
    _gathered,
    _arm_builds,
    _oversized,
)
