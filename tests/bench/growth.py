"""How cost grows with the catalog: a million offers, made of the bundled ones at other prices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice

import numpy as np
from tests.bench.figures import Figure, timed
from tests.bench.in_process import RECOMMEND, WARM_UP
from tests.bench.questions import Request, example, new_workloads, seen_before

from sizewright_catalog.catalog import Catalog
from sizewright_server.service import Sizing
from sizewright_server.servicer import dispatch

OFFERS = 1_000_000
#: Time per offer against the full catalog's: 1 is linear.
LINEAR = 1.0


def grown(catalog: Catalog, offers: int) -> Catalog:
    """The catalog's types under as many offers: its own again and again, each time a bit dearer."""
    arrays, own = dict(catalog.arrays), catalog.offer_count
    rows = np.arange(offers) % own
    for name, column in catalog.arrays.items():
        if name.startswith("offer_"):
            arrays[name] = column[rows]
    dearer = 1000 + np.arange(offers) // own
    arrays["offer_nanos"] = arrays["offer_nanos"] * dearer // 1000
    return Catalog(arrays, {**catalog.meta, "version": f"{offers:064d}"})


def fits() -> Iterator[Request]:
    """Fits on the CPU, for which every offer competes, each of a table no other one has."""
    for i in count():
        request = example("xgboost-tabular")
        request.workload.dataset.rows += i
        yield request


def growth_figures(app: Sizing, calls: int) -> list[Figure]:
    """Time per offer over a million of them, against the same questions over the full catalog."""
    large = Sizing(grown(app.catalog, OFFERS))
    share = OFFERS / app.catalog.offer_count
    made = []
    asked: tuple[tuple[str, Callable[[], Iterator[Request]]], ...] = (
        ("new workload, explicit layout", lambda: new_workloads(explicit=True)),
        ("seen workload, other constraints", seen_before),
        ("new fit, on CPUs", fits),
    )
    for name, questions in asked:
        small_ms, large_ms = (_median(one, questions, calls) for one in (app, large))
        made.append(
            Figure(
                f"a million offers: {name}, time per offer",
                large_ms / small_ms / share,
                "x",
                LINEAR,
                beside={"million_ms": large_ms, "full_catalog_ms": small_ms},
                basis=f"against {app.catalog.offer_count:,} offers; it is {share:.1f} times those",
            )
        )
    return made


def _median(app: Sizing, questions: Callable[[], Iterator[Request]], calls: int) -> float:
    app.remembered.forget()
    ready = list(islice(questions(), WARM_UP + calls))
    for request in ready[:WARM_UP]:
        dispatch(app, RECOMMEND, request)
    return timed([_asking(app, request) for request in ready[WARM_UP:]]).median


def _asking(app: Sizing, request: Request) -> Callable[[], object]:
    return lambda: dispatch(app, RECOMMEND, request)
