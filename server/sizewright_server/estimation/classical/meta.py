"""Estimators made of others: pipelines, searches, stacks, votes and calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.job import FitJob, Table
from sizewright_server.estimation.classical.parts import (
    SKLEARN,
    Moment,
    Steps,
    best_bytes,
    heaviest,
    part,
)
from sizewright_server.estimation.classical.preprocessing import output_of, output_part
from sizewright_server.estimation.classical.registry import estimator, steps_of
from sizewright_server.estimation.memory import ByteRange, Part

#: joblib maps arrays of more than this to a file that the workers share (Parallel, max_nbytes).
MAPPED_FROM_BYTES = 10**6
DEFAULT_FOLDS = 5


def inner_job(job: FitJob, given: Any, name: str) -> FitJob:
    """The job of an estimator inside another: a class name, or an object with parameters.

    Raises UnsupportedWorkload when it is neither.
    """
    if isinstance(given, str):
        given = {"class_name": given}
    if not isinstance(given, Mapping) or not isinstance(given.get("class_name"), str):
        raise job.refuse(name, "must be a class name or {class_name, hyper_parameters}")
    parameters = given.get("hyper_parameters", {})
    if not isinstance(parameters, Mapping):
        raise job.refuse(name, "hyper_parameters must be an object")
    library = str(given.get("library", job.library))
    return replace(
        job,
        library=library,
        class_name=given["class_name"],
        parameters=dict(parameters),
        operations=("fit",),
    )


def scaled(each: Part, times: float, why: str) -> Part:
    """A part so many times over."""
    size = each.size
    grown = ByteRange(
        *(int(bound * times) for bound in (size.low_bytes, size.best_bytes, size.high_bytes))
    )
    text = f"{why} x ({each.formula})"
    return replace(each, size=grown, formula=text, numbers=f"{times:g} x {each.numbers}")


@estimator("scikit-learn", "Pipeline", "make_pipeline")
def pipeline(job: FitJob) -> Steps:
    """Each step on what the one before returned; the input of a step is freed by the next.

    The caller's own table stays to the end, so it is counted outside.
    """
    given = job.get("steps")
    if not isinstance(given, list) or not given:
        raise job.refuse("steps", "must be a list of estimators")
    current = job
    before: tuple[Part, ...] = ()
    moments: list[Moment] = []
    model: tuple[Part, ...] = ()
    predict: tuple[Part, ...] = ()
    for at, one in enumerate(given):
        step = inner_job(current, one, "steps")
        made = steps_of(step)
        last = at == len(given) - 1
        for moment in made.fit:
            moments.append(Moment(f"{moment.name}-{at + 1}", (*before, *model, *moment.parts)))
        model = (*model, *made.model)
        predict = (*before, *made.predict)
        if last:
            break
        moments.append(Moment(f"transform-{at + 1}", (*before, *model, *made.predict)))
        before = (output_part(step, f"output-{at + 1}"),)
        current = step.on(output_of(step))
    return Steps(tuple(moments), model, predict)


@estimator("scikit-learn", "GridSearchCV", "RandomizedSearchCV", "cross_val_score")
@estimator("scikit-learn", "cross_validate", "HalvingGridSearchCV", "HalvingRandomSearchCV")
def search(job: FitJob) -> Steps:
    """Folds in turn or in worker processes, each with its training and test rows copied.

    Workers of joblib's loky share a large table as a mapped file and import the libraries anew.
    """
    inner = inner_job(job, job.get("estimator", job.get("base_estimator")), "estimator")
    cv = job.get("cv")
    folds = max(2, job.count("cv", DEFAULT_FOLDS)) if not isinstance(cv, str) else DEFAULT_FOLDS
    train = inner.on(_share(job.table, 1 - 1 / folds))
    steps = steps_of(train)
    rows = _fold_rows(job, folds)
    fold = (rows, *heaviest(steps.fit).parts)
    workers = job.workers()
    whole = steps_of(inner)
    refit = [] if job.class_name.startswith("cross") else list(whole.fit)
    if workers <= 1:
        return Steps((Moment("fit-folds", fold), *_named(refit)), whole.model, whole.predict)
    pool = [scaled(each, workers, "workers") for each in fold]
    pool.append(constant("process", "loky_worker").part("workers", "workers x own pages", workers))
    pool.append(constant("process", "loky_manager").part("worker-manager", "resource tracker"))
    shared = job.table.matrix_bytes()
    if shared > MAPPED_FROM_BYTES:
        text = "the table as a file all workers map"
        source = "joblib: Parallel(max_nbytes), a file in /dev/shm"
        pool.append(part("shared-table", shared, text, f"{shared:,} B", source))
    return Steps((Moment("fit-folds", tuple(pool)), *_named(refit)), whole.model, whole.predict)


def _named(moments: list[Moment]) -> list[Moment]:
    return [Moment(f"refit-{moment.name}", moment.parts) for moment in moments]


def _share(table: Table, share: float) -> Table:
    return replace(table, rows=max(1, int(table.rows * share)), container=table.container)


def _fold_rows(job: FitJob, folds: int) -> Part:
    """Training and test rows of a fold are both copies, and together they are the table."""
    size = job.table.matrix_bytes() + job.table.rows * 8
    text = "training rows + test rows"
    return part("fold-rows", size, text, f"{folds} folds of {size:,} B", f"{SKLEARN}: _safe_split")


@estimator("scikit-learn", "train_test_split")
def train_test_split(job: FitJob) -> Steps:
    """Both sides are copies of rows; the original stays as long as its name does."""
    size = job.table.matrix_bytes() + job.table.rows * 8
    source = f"{SKLEARN}: model_selection/_split.py"
    made = part("split-rows", size, "training rows + test rows", f"{size:,} B", source)
    return Steps((Moment("fit", (made,)),), (made,))


@estimator("scikit-learn", "StackingClassifier", "StackingRegressor")
@estimator("scikit-learn", "VotingClassifier", "VotingRegressor")
def ensemble(job: FitJob) -> Steps:
    """Each member fitted on everything; a stack also predicts them all over folds."""
    given = job.get("estimators")
    if not isinstance(given, list) or not given:
        raise job.refuse("estimators", "must be a list of estimators")
    members = [steps_of(inner_job(job, one, "estimators")) for one in given]
    model = tuple(each for made in members for each in made.model)
    worst = max((heaviest(made.fit) for made in members), key=lambda m: best_bytes(m.parts))
    moments = [Moment("fit-members", (*model, *worst.parts))]
    if job.class_name.startswith("Stacking"):
        folds = _fold_rows(job, DEFAULT_FOLDS)
        moments.append(Moment("fit-folds", (*model, folds, *worst.parts)))
    return Steps(tuple(moments), model, ())


@estimator("scikit-learn", "CalibratedClassifierCV", "OneVsRestClassifier", "OneVsOneClassifier")
@estimator("scikit-learn", "MultiOutputClassifier", "MultiOutputRegressor", "RFE", "RFECV")
def repeated(job: FitJob) -> Steps:
    """The inner estimator several times, one after the other, its models kept."""
    inner = inner_job(job, job.get("estimator"), "estimator")
    made = steps_of(inner)
    times = DEFAULT_FOLDS if job.class_name.startswith("Calibrated") else max(job.table.classes, 1)
    model = tuple(scaled(each, times, "fits") for each in made.model)
    held: tuple[Part, ...] = (_fold_rows(job, DEFAULT_FOLDS),) if times == DEFAULT_FOLDS else ()
    return Steps((Moment("fit", (*held, *model, *heaviest(made.fit).parts)),), model, made.predict)
