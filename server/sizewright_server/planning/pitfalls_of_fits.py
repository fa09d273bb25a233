"""Pitfalls of classical estimators: copies of the table, reading it, cores that stand idle."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sizewright_server.estimation.classical.job import FitJob
from sizewright_server.estimation.classical.prepared import FitWorkload
from sizewright_server.estimation.memory import Notice, Part, Phase
from sizewright_server.planning.offload_time import disks
from sizewright_server.planning.situation import GIB, Situation, gib, seconds

#: A table whose peak is so many times its own size.
MANY_COPIES = 4
#: Reading needs so many times what comes after it.
READING = 1.2
#: Preprocessing that makes so many times the table.
MULTIPLIED = 1.5
#: Below this share of host memory more of it does not help a fit.
HALF_FREE = 0.5
#: Cores that stand idle on a machine that was bought for its memory.
IDLE = 0.5
#: A minute of parsing.
LONG_SECONDS = 60.0
#: What is there before anything is computed.
GIVEN = frozenset({"features", "process", "first-fit", "target", "string-columns"})
#: Forests and the like of scikit-learn run on one core unless told otherwise.
ONE_CORE = ("RandomForest", "ExtraTrees", "Bagging")
#: Threads of a fit that states none.
UNSTATED_THREADS = 2


def _fit(it: Situation) -> FitJob | None:
    return it.workload.job if isinstance(it.workload, FitWorkload) else None


def _peak(it: Situation) -> tuple[Phase, tuple[Phase, ...]] | None:
    """The phase of the peak, and all."""
    pool = it.host_phases()
    if pool is None:
        return None
    return next(phase for phase in pool.phases if phase.name == pool.peak_phase), pool.phases


def _copies_of_a_table(it: Situation) -> Iterator[Notice]:
    """What it is that makes a fit many times its table."""
    job, host = _fit(it), it.pool("host")
    if job is None or host is None:
        return
    table = job.table.matrix_bytes()
    if table <= GIB or host.peak.best_bytes <= MANY_COPIES * table:
        return
    found = _peak(it)
    largest = _largest(found[0]) if found else []
    named = " and ".join(f"{part.name} ({gib(part.size.best_bytes)})" for part in largest)
    words = (
        f"At its peak the fit holds {host.peak.best_bytes / table:.0f} times the {gib(table)} of "
        f"its table: {named} make it large, not the data."
    )
    yield Notice("copies-of-the-table", words)


def _largest(phase: Phase) -> list[Part]:
    """The two largest parts beside the table."""
    made = [part for part in phase.parts if part.name not in GIVEN]
    return sorted(made, key=lambda part: -part.size.best_bytes)[:2]


def _reading(it: Situation) -> Iterator[Notice]:
    """Reading that takes more memory than the fit, and time that no memory shortens."""
    job, found = _fit(it), _peak(it)
    if job is None or found is None or job.file is None:
        return
    peak, phases = found
    after = max((p.total.best_bytes for p in phases if p.name != "read-file"), default=0)
    if peak.name == "read-file" and peak.total.best_bytes > READING * after:
        words = (
            f"Reading the file is the peak: {gib(peak.total.best_bytes)}, where all that follows "
            f"takes {gib(after)}. Chunks, or Parquet read by column, take less."
        )
        yield Notice("reading-multiplies", words)
    text = next((p for phase in phases for p in phase.parts if p.name == "file-text"), None)
    size = job.file.size_bytes or (text.size.best_bytes if text else 0)
    band = disks()["csv_parse"]
    if job.file.format == "csv" and size / band["high"] > LONG_SECONDS:
        words = (
            f"Parsing {gib(size)} of CSV takes {seconds(size / band['high'], size / band['low'])} "
            "on one core, whatever the memory: Parquet is read by column and by several."
        )
        yield Notice("parsing-binds", words)


def _preprocessing(it: Situation) -> Iterator[Notice]:
    """A split, an encoding or a transformation that multiplies the data."""
    job, found = _fit(it), _peak(it)
    if job is None or found is None:
        return
    table = job.table.matrix_bytes()
    if job.test_share and not job.frees_table and table > GIB:
        words = (
            f"train_test_split copies the rows: {gib(table)} more while the table is still "
            "referenced. `del` it after the split."
        )
        yield Notice("preprocessing-multiplies", words)
    made = max(
        (p.size.best_bytes for phase in found[1] for p in phase.parts if "transformed" in p.name),
        default=0,
    )
    if made > GIB and made > MULTIPLIED * table:
        words = (
            f"Preprocessing makes {gib(made)} of a table of {gib(table)}: "
            f"{made / table:.1f} times as much, dense."
        )
        yield Notice("preprocessing-multiplies", words)


def _cores_bind(it: Situation) -> Iterator[Notice]:
    """More memory does not make a fit faster that has enough of it; more cores may."""
    job, host, cpus = _fit(it), it.pool("host"), it.target.vcpus
    if job is None or host is None or job.on_gpu or not cpus:
        return
    threads = job.workers()
    forest = job.library == "scikit-learn" and job.class_name.startswith(ONE_CORE)
    if forest and threads <= IDLE * cpus and cpus > 2:
        words = (
            f"The forest grows on {threads} of {cpus} vCPUs (n_jobs): it is bound by computing, "
            "and more memory does not help. Each further job holds its own trees while they grow."
        )
        yield Notice("cores-idle", words)
    elif it.used("host") < HALF_FREE and host.peak.high_bytes > GIB:
        words = (
            f"Memory does not bind: {gib(host.usable_bytes - host.peak.high_bytes)} stay free. "
            f"The time is that of {cpus} vCPUs, and more memory does not shorten it."
        )
        yield Notice("compute-binds", words)


def _fewer_cores(it: Situation) -> Iterator[Notice]:
    """A machine that was chosen for its memory has fewer cores than the fit was said to use."""
    job, cpus = _fit(it), it.target.vcpus
    if job is None or job.on_gpu or not cpus:
        return
    threads = max(job.threads, job.workers())
    if threads > max(cpus, UNSTATED_THREADS):
        words = (
            f"The fit was said to use {threads} threads, and the machine has {cpus} vCPUs: it "
            f"takes up to {threads / cpus:.2g} times as long as on {threads}. "
            f"'min_vcpus: {threads}' leaves such machines out."
        )
        yield Notice("fewer-cores", words)


FITS: tuple[Callable[[Situation], Iterator[Notice]], ...] = (
    _copies_of_a_table,
    _reading,
    _preprocessing,
    _cores_bind,
    _fewer_cores,
)
