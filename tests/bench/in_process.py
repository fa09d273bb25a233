"""Recommend and its steps in this process: no gRPC, no cache of whole answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from tests.bench.figures import Figure, timed
from tests.bench.questions import Request, new_workloads, seen_before, with_techniques

from sizewright_server.estimation.memory import MemoryEstimate
from sizewright_server.estimation.preparation import AnyPrepared, prepare_any
from sizewright_server.planning.plan import PlanningResult
from sizewright_server.planning.planner import Question, recommend
from sizewright_server.questions import RecommendQuestion
from sizewright_server.service import Sizing, estimate_of
from sizewright_server.servicer import dispatch
from sizewright_server.wire.plans import recommend_response
from sizewright_server.wire.requests import read_recommend

RECOMMEND = "/sizewright.v1.SizingService/Recommend"
WARM_UP = 40

Questions = Callable[[], Iterator[Request]]

#: What has a budget (design §9), its questions, and the milliseconds allowed.
ASKED: tuple[tuple[str, Questions, float], ...] = (
    ("recommend: new workload, explicit layout", lambda: new_workloads(explicit=True), 3.0),
    ("recommend: new workload, all layouts", lambda: new_workloads(explicit=False), 10.0),
    ("recommend: seen workload, other constraints", seen_before, 1.0),
    ("recommend: new workload, layouts and techniques", with_techniques, 30.0),
)


def recommend_figures(app: Sizing, calls: int) -> list[Figure]:
    """One Recommend over the full catalog, for each kind of question that has a budget."""
    basis = "one call in process, request message to response bytes, full catalog"
    made = []
    for name, questions, budget in ASKED:
        ready = [_asking(app, request) for request in islice(questions(), WARM_UP + calls)]
        for call in ready[:WARM_UP]:
            call()
        timing = timed(ready[WARM_UP:])
        made.append(Figure(name, timing.median, "ms", budget, beside=timing.beside(), basis=basis))
    return made


def _asking(app: Sizing, request: Request) -> Callable[[], object]:
    return lambda: dispatch(app, RECOMMEND, request)


class Steps:
    """One Recommend in the steps it is made of; each leaves what the next one needs."""

    def __init__(self, app: Sizing, sent: bytes) -> None:
        self.app, self.sent = app, sent
        self.question: RecommendQuestion
        self.prepared: AnyPrepared
        self.result: PlanningResult
        self.estimates: list[MemoryEstimate]

    def read(self) -> None:
        """Bytes to a validated question."""
        self.question = read_recommend(Request.FromString(self.sent), self.app.catalog)

    def prepare(self) -> None:
        """The model read, its blocks compiled where their structure is new, parameters counted."""
        self.prepared = prepare_any(self.question.workload)

    def plan(self) -> None:
        """Every layout estimated, every offer ranked."""
        asked = self.question
        self.result = recommend(
            Question(self.prepared, asked.constraints, asked.max_results, self.app.today()),
            self.app.index,
        )

    def explain(self) -> None:
        """The first plan's estimate as a tree of parts."""
        self.estimates = [estimate_of(plan) for plan in self.result.plans[:1]]

    def word(self) -> None:
        """The answer as bytes."""
        recommend_response(self.result, self.estimates, self.app.catalog, self.app.today())


#: The function-level budget of a Recommend with an explicit layout; together 3 ms.
STEPS: tuple[tuple[str, Callable[[Steps], None], float], ...] = (
    ("read and validate", Steps.read, 0.15),
    ("prepare the model", Steps.prepare, 0.45),
    ("estimate layouts, rank offers", Steps.plan, 1.35),
    ("explain the first plan", Steps.explain, 0.65),
    ("answer as bytes", Steps.word, 0.40),
)


def step_figures(app: Sizing, calls: int) -> list[Figure]:
    """Where the time of a new workload with an explicit layout goes."""
    basis = "one step of a Recommend for a new workload with an explicit layout"
    requests = islice(new_workloads(explicit=True), 2 * WARM_UP + calls)
    asked = [Steps(app, request.SerializeToString()) for request in requests]
    made = []
    for name, step, budget in STEPS:
        ready = [_taking(step, each) for each in asked]
        for call in ready[:WARM_UP]:
            call()
        timing = timed(ready[WARM_UP:])
        made.append(
            Figure(
                f"step: {name}", timing.median, "ms", budget, beside=timing.beside(), basis=basis
            )
        )
    return made


def _taking(step: Callable[[Steps], None], steps: Steps) -> Callable[[], object]:
    return lambda: step(steps)
