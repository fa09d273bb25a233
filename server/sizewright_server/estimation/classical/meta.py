"""Estimators made of others: pipelines, searches, stacks, votes and calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sizewright_server.estimation.classical.job import FitJob, Table
from sizewright_server.estimation.classical.outputs import output_of
from sizewright_server.estimation.classical.parts import (
    SKLEARN,
    Moment,
    Steps,
    best_bytes,
    heaviest,
    part,
)
from sizewright_server.estimation.classical.preprocessing import output_part
from sizewright_server.estimation.classical.registry import estimator, steps_of
from sizewright_server.estimation.classical.trees import loky_parts
from sizewright_server.estimation.memory import ByteRange, Part

DEFAULT_FOLDS = 5
#: Classes that fit on folds, whose rows are copies.
CROSS_VALIDATED = (
    "CalibratedClassifierCV",
    "RFECV",
    "SequentialFeatureSelector",
    "TunedThresholdClassifierCV",
)
#: Classes that fit the inner estimator once for each label or output.
PER_LABEL = (
    "OneVsRestClassifier",
    "OneVsOneClassifier",
    "OutputCodeClassifier",
    "MultiOutputClassifier",
    "MultiOutputRegressor",
    "ClassifierChain",
    "RegressorChain",
)


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
    pool += loky_parts(job)
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
@estimator("scikit-learn", "ClassifierChain", "RegressorChain", "OutputCodeClassifier")
@estimator(
    "scikit-learn", "SelectFromModel", "SequentialFeatureSelector", "TransformedTargetRegressor"
)
@estimator("scikit-learn", "SelfTrainingClassifier", "TunedThresholdClassifierCV")
@estimator("scikit-learn", "FixedThresholdClassifier")
def repeated(job: FitJob) -> Steps:
    """The inner estimator several times, one after the other, its models kept."""
    inner = inner_job(job, job.get("estimator"), "estimator")
    made = steps_of(inner)
    times = _fits(job)
    model = tuple(scaled(each, times, "fits") for each in made.model)
    held: tuple[Part, ...] = ()
    if job.class_name in CROSS_VALIDATED:
        held = (_fold_rows(job, max(2, times)),)
    elif job.class_name in ("ClassifierChain", "RegressorChain", "RFE", "SelfTrainingClassifier"):
        # The table again, with the chain's outputs or without the columns that were dropped.
        # RFE takes columns, which makes a copy by column that estimators turn by row again.
        size = job.table.matrix_bytes() * (2 if job.class_name == "RFE" else 1)
        held = (part("changed-table", size, "rows or columns of X", f"{size:,} B", SKLEARN),)
    return Steps((Moment("fit", (*held, *model, *heaviest(made.fit).parts)),), model, made.predict)


def _fits(job: FitJob) -> int:
    """How many fitted estimators are kept."""
    if job.class_name == "CalibratedClassifierCV":
        cv = job.get("cv")
        return max(2, int(cv)) if isinstance(cv, int) else DEFAULT_FOLDS
    if job.class_name == "OneVsOneClassifier":
        return max(1, job.table.classes * (job.table.classes - 1) // 2)
    return max(job.table.classes, 1) if job.class_name in PER_LABEL else 1


@estimator("scikit-learn", "ColumnTransformer", "FeatureUnion", "make_column_transformer")
def side_by_side(job: FitJob) -> Steps:
    """Transformers on columns of the table, and their outputs joined: alone, and together.

    Each is [transformer, columns]; a transformer alone sees the whole table.
    """
    given = job.get("transformers", job.get("transformer_list"))
    if not isinstance(given, list) or not given:
        raise job.refuse("transformers", "must be a list of [estimator, number of columns]")
    outputs: list[Part] = []
    moments: list[Moment] = []
    for at, one in enumerate(given, 1):
        chosen, columns = one if isinstance(one, list) and len(one) == 2 else (one, None)
        table = job.table
        if columns is not None:
            width = len(columns) if isinstance(columns, list) else columns
            if not isinstance(width, int) or not 1 <= width <= job.table.columns:
                raise job.refuse(
                    "transformers", f"columns must be counts or names, not {columns!r}"
                )
            table = replace(table, columns=width)
        step = inner_job(job.on(table), chosen, "transformers")
        made = steps_of(step)
        moments += [Moment(f"{m.name}-{at}", (*outputs, *m.parts)) for m in made.fit]
        moments.append(Moment(f"transform-{at}", (*outputs, *made.predict)))
        outputs.append(output_part(step, f"output-{at}"))
    joined = [replace(each, name=each.name.replace("output", "joined-output")) for each in outputs]
    moments.append(Moment("fit-joined", (*outputs, *joined)))
    return Steps(tuple(moments), (), (*outputs, *joined))
