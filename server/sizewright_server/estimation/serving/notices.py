"""What the asker of a serving estimate should know."""

from __future__ import annotations

from sizewright_server.estimation.memory import Notice
from sizewright_server.estimation.serving.model import ServedModel
from sizewright_server.estimation.serving.rules import rules_of
from sizewright_server.estimation.serving.run import POOLED, ServingDevice, ServingWorkload
from sizewright_server.estimation.serving.stages import Setup
from sizewright_server.estimation.serving.view import ServingView

GIB = 2**30
#: Files that differ by more than this share from the shapes get a warning.
STORED_DIFFERS = 0.02


def notices_of(
    workload: ServingWorkload,
    model: ServedModel,
    setup: Setup,
    device: ServingDevice,
    seen: ServingView,
) -> tuple[Notice, ...]:
    """Versions, pools that cannot start, and pages of weight files."""
    made = [*_version(workload), *_pool(workload, seen), *_length(workload, model)]
    share = setup.stored_share
    if abs(share - 1) > STORED_DIFFERS:
        text = (
            f"The files hold {share:.1%} of what the shapes say; the files' sizes are used. "
            "Another quantisation, or another model's configuration, would explain it."
        )
        made.append(Notice("stored-weights-differ", text))
    if device.total.best_bytes == 0 and workload.run.engine in POOLED:
        text = "No device is given: what the pool holds is not known, only what it needs."
        made.append(Notice("device-not-stated", text))
    held = sum(n for _, n in setup.weight_parts(0)) * setup.layout.tp * setup.layout.pp
    if held >= GIB:
        text = (
            f"Reading the weights passes {held / GIB:,.1f} GiB through the page cache, which the "
            "kernel takes back when processes need it; it is not in the host figure."
        )
        made.append(Notice("page-cache", text))
    return tuple(made)


def _version(workload: ServingWorkload) -> list[Notice]:
    run = workload.run
    if run.engine == "pytorch":
        return []
    rules = rules_of(run.engine, run.version)
    newest = ".".join(map(str, rules.newest))
    if run.version is None:
        text = f"No engine version is given; the rules of {run.engine} {newest} are used."
        return [Notice("engine-version-not-stated", text)]
    if rules.is_older:
        oldest = ".".join(map(str, rules.oldest))
        text = f"{run.engine} before {oldest} is not known; the rules of {oldest} are used."
        return [Notice("engine-version-older", text)]
    if not rules.is_newer:
        return []
    stated = ".".join(map(str, run.version))
    text = (
        f"{run.engine} {stated} is newer than the known rules ({newest}), which are used with "
        "wider intervals."
    )
    return [Notice("engine-version-newer", text)]


def _pool(workload: ServingWorkload, seen: ServingView) -> list[Notice]:
    """A pool too small to start with, or for what is asked."""
    blocks = seen.kv_blocks
    if blocks is None:
        return []
    if blocks.best == 0:
        text = "Nothing is left for the cache on this GPU: the engine refuses to start."
        return [Notice("no-cache", text)]
    if seen.needed_cache.best_bytes > blocks.best * seen.block_bytes:
        text = (
            f"The pool holds {blocks.best * seen.block_bytes / GIB:,.2f} GiB and what is asked "
            f"needs {seen.needed_cache.best_bytes / GIB:,.2f} GiB: some sequences will wait."
        )
        return [Notice("cache-too-small", text)]
    run = workload.run
    if run.max_num_seqs and run.batch > run.max_num_seqs:
        text = f"{run.batch} sequences are asked and max_num_seqs admits {run.max_num_seqs}."
        return [Notice("sequences-limited", text)]
    return []


def _length(workload: ServingWorkload, model: ServedModel) -> list[Notice]:
    run = workload.run
    if run.tokens <= model.positions:
        return []
    text = f"The model was made for {model.positions:,} positions; {run.tokens:,} are asked."
    return [Notice("beyond-context", text)]
