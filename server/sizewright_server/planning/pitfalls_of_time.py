"""Pitfalls that show while a job runs: growth, leaks, doubt that a measurement would end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sizewright_server.estimation.memory import Notice
from sizewright_server.estimation.serving.run import ServingWorkload
from sizewright_server.planning.offload_time import disks
from sizewright_server.planning.situation import Situation, gib, seconds

MIB = 2**20
#: Above this share the estimate deserves a look while the job runs.
NEARLY_FULL = 0.95
#: A high estimate so many times the best one decides the machine by doubt.
WIDE_DOUBT = 1.5
#: Below this share of a pool its doubt decides nothing.
IN_DOUBT = 0.5
#: A job in which a slow leak has time to fill what is free.
LONG_HOURS = 8.0
#: Growth a minute that an observation of a few minutes tells from noise: slower leaks are missed.
LEAK_BYTES_PER_MINUTE = 20 * MIB
WEEK_HOURS = 168.0
MINUTES = 60
#: Beyond this share of host memory a job that swaps does little else.
SWAPPABLE = 0.5
WATCH = "`sizewright observe --estimate FILE -- COMMAND`"


def _watch_it(it: Situation) -> Iterator[Notice]:
    for pool in it.pools:
        used = it.used(pool.pool)
        if pool.verdict != "no" and used > NEARLY_FULL:
            name = "GPU" if pool.pool == "gpu" else "host"
            words = (
                f"The {name} is {100 * used:.0f} % full by the high estimate: run it once under "
                "`sizewright observe` before you rely on it."
            )
            yield Notice("nearly-full", words)


def _doubt(it: Situation) -> Iterator[Notice]:
    """An estimate whose doubt, not whose size, decides the machine."""
    for pool in it.pools:
        best, high = pool.peak.best_bytes, pool.peak.high_bytes
        wide = best > 0 and high / best >= WIDE_DOUBT and it.used(pool.pool) > IN_DOUBT
        if pool.verdict == "fits" and wide and it.used(pool.pool) <= NEARLY_FULL:
            name = "GPU" if pool.pool == "gpu" else "host"
            words = (
                f"Nobody has measured this job: the {name} estimate is {gib(best)} and may be "
                f"{gib(high)}, and the machine is chosen for that. One run under {WATCH} tells."
            )
            yield Notice("not-monitored", words)


def _growth_on_gpu(it: Situation) -> Iterator[Notice]:
    """Batches of varying length: the caching allocator keeps a block for each new size."""
    run, gpu = it.training, it.pool("gpu")
    if run is None or gpu is None or run.variable_lengths is not True or run.expandable_segments:
        return
    words = (
        f"Batches vary in length: reserved GPU memory grows from {gib(gpu.peak.best_bytes)} "
        f"towards {gib(gpu.peak.high_bytes)} as longer ones come, which is no leak. Watch it with "
        f"{WATCH}; expandable segments end it."
    )
    yield Notice("growth-of-the-allocator", words)


def _growth_of_a_cache(it: Situation) -> Iterator[Notice]:
    """A pipeline that keeps every sample it has made."""
    work = it.network
    if work is None or work.dataset is None or not work.dataset.cached:
        return
    words = (
        "The pipeline keeps every sample it has made: memory grows over the first epoch and then "
        f"stays. Watch it with {WATCH}."
    )
    yield Notice("growth-of-a-cache", words)


def _leak_budget(it: Situation) -> Iterator[Notice]:
    """How fast memory may grow before a long job fails; a server runs for weeks."""
    host, serves = it.pool("host"), isinstance(it.workload, ServingWorkload)
    hours = WEEK_HOURS if serves else it.hours[1] if it.hours is not None else 0.0
    if host is None or hours < LONG_HOURS or host.verdict != "fits":
        return
    free = host.usable_bytes - host.peak.high_bytes
    budget = free / (hours * MINUTES)
    if budget < LEAK_BYTES_PER_MINUTE:
        span = "a week" if serves else f"{hours:,.0f} hours"
        words = (
            f"In {span} a leak of {budget / MIB:,.1f} MiB a minute fills the {gib(free)} of host "
            f"memory that are free. {WATCH} tells the trend after minutes."
        )
        yield Notice("leak-budget", words)


def _virtual_memory(it: Situation) -> Iterator[Notice]:
    """Host memory that is lacking by little: swap holds it, at a price in time."""
    host = it.pool("host")
    if (
        host is None
        or host.verdict == "fits"
        or any(pool.pool == "gpu" and pool.verdict != "fits" for pool in it.pools)
    ):
        return
    missing = host.peak.high_bytes - host.usable_bytes
    if not 0 < missing <= SWAPPABLE * host.usable_bytes:
        return
    band = disks()["nvme_read"]
    words = (
        f"The host lacks {gib(missing)} by the high estimate: swap on a local NVMe drive holds "
        f"that, and every pass over what is swapped takes "
        f"{seconds(missing / band['high'], missing / band['low'])} more. It suits a peak that is "
        "passed once, as reading and saving are, not one that every step visits."
    )
    yield Notice("virtual-memory", words)


TIME: tuple[Callable[[Situation], Iterator[Notice]], ...] = (
    _watch_it,
    _doubt,
    _growth_on_gpu,
    _growth_of_a_cache,
    _leak_budget,
    _virtual_memory,
)
