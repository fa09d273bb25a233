"""Sets of techniques that are worth a search: those that free most where memory lacks."""

from __future__ import annotations

from collections.abc import Iterable

from sizewright_server.estimation.memory import Notice
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.planning.comparing import saved_bytes
from sizewright_server.planning.needs import Prepared
from sizewright_server.planning.plan import Miss
from sizewright_server.planning.variants import Combination, Prepare

#: Sets that are searched: a search over many kinds and nodes takes tens of milliseconds.
MOST_SEARCHED = 128


def promising(
    combinations: Iterable[Combination], prepared: Prepared, prepare: Prepare, miss: Miss
) -> list[Combination]:
    """The combinations, those first that free most of what the nearest miss lacks.

    Each is estimated once, under the layout of the miss; `prepared` is the workload without them.
    Of those that free as much, the first come first.
    """
    freed = [(_freed(one[0], prepared, prepare, miss), one) for one in combinations]
    freed.sort(key=lambda pair: -pair[0])
    return [one for _, one in freed]


def bounded(what: str, tried: int, of: int) -> Notice:
    """That a search did not look at everything."""
    words = (
        f"Of {of:,} {what} the {tried:,} that free most were tried: another may make something "
        "fit as well."
    )
    return Notice("advice-bounded", words)


def too_many(count: int) -> Notice:
    """That techniques were not put together."""
    words = (
        f"Techniques that leave results alone have {count:,} combinations, too many to search "
        "together: each was tried by itself."
    )
    return Notice("advice-bounded", words)


def _freed(workload: AnyWorkload, prepared: Prepared, prepare: Prepare, miss: Miss) -> int:
    """Bytes off the pool that lacks most; none where the change contradicts the model."""
    target = miss.machine or (miss.offer and miss.offer.instance_type)
    ranks = max(target.device_count, 1) if target else 1
    try:
        gpu, host = saved_bytes(prepared, prepare(workload), miss.layout, ranks)
    except UnsupportedWorkload:
        return 0
    short = max(miss.pools, key=lambda pool: pool.peak.high_bytes - pool.usable_bytes)
    return gpu if short.pool == "gpu" else host
