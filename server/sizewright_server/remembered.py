"""What is remembered between questions: prepared workloads, and what was searched for them."""

from __future__ import annotations

import threading
from collections import OrderedDict

from sizewright_server.estimation.preparation import AnyPrepared, AnyWorkload, prepare_any
from sizewright_server.planning.searching import KeptSearches

#: Prepared workloads kept: a few hundred KiB each.
MOST_WORKLOADS = 128


class Remembered:
    """The last workloads by their requests' bytes. No answer is kept, only what answers need."""

    def __init__(self) -> None:
        self._prepared: OrderedDict[bytes, tuple[AnyWorkload, AnyPrepared]] = OrderedDict()
        #: By the same keys; of one catalog version, as kinds of node are.
        self._searches: dict[bytes, KeptSearches] = {}
        self._lock = threading.Lock()

    def under_another_catalog(self) -> Remembered:
        """The same workloads without their searches; both remember what either prepares."""
        made = Remembered()
        made._prepared, made._lock = self._prepared, self._lock
        return made

    def forget(self) -> None:
        """Forgets everything, so that the next question starts anew."""
        with self._lock:
            self._prepared.clear()
            self._searches.clear()

    def workload(self, key: bytes) -> AnyWorkload | None:
        """The workload of a request's bytes that was read, found right and prepared before."""
        with self._lock:
            seen = self._prepared.get(key)
        return None if seen is None else seen[0]

    def prepared(self, workload: AnyWorkload, key: bytes) -> AnyPrepared:
        """The prepared workload, one already seen where there is one.

        Raises UnsupportedWorkload.
        """
        with self._lock:
            seen = self._prepared.get(key)
            if seen is not None:
                self._prepared.move_to_end(key)
                return seen[1]
        made = prepare_any(workload)
        with self._lock:
            self._prepared[key] = workload, made
            if len(self._prepared) > MOST_WORKLOADS:
                oldest, _ = self._prepared.popitem(last=False)
                self._searches.pop(oldest, None)
        return made

    def searches(self, key: bytes) -> KeptSearches:
        """What was searched for a workload that is still remembered."""
        with self._lock:
            return self._searches.setdefault(key, {}) if key in self._prepared else {}
