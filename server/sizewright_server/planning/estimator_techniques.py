"""What each technique makes of a classical estimator: its workers, its trees, where it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sizewright_server.estimation.classical.batches import BATCH_ROWS
from sizewright_server.estimation.classical.prepared import FitWorkload
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.planning.changes import Change, Form, Rule
from sizewright_server.planning.data_techniques import with_job

PATH = "workload.model.estimator.hyper_parameters"
#: The parameter that counts trees, with the library's default, by the end of a class name.
TREES = {
    "RandomForestClassifier": ("n_estimators", 100),
    "RandomForestRegressor": ("n_estimators", 100),
    "ExtraTreesClassifier": ("n_estimators", 100),
    "ExtraTreesRegressor": ("n_estimators", 100),
    "GradientBoostingClassifier": ("n_estimators", 100),
    "GradientBoostingRegressor": ("n_estimators", 100),
    "HistGradientBoostingClassifier": ("max_iter", 100),
    "HistGradientBoostingRegressor": ("max_iter", 100),
}
BOOSTED = ("XGB", "LGBM")
#: Trees that grow until their leaves are pure: the forests of scikit-learn.
FULLY_GROWN = ("RandomForest", "ExtraTrees")
#: A forest's smallest leaf is made so many times as large, for about as many fewer nodes.
LARGER_LEAVES = 4
DEPTH = 6
LEAVES = 31
SHALLOWEST = 3
FEWEST_LEAVES = 8


def _with_parameter(workload: FitWorkload, name: str, before: Any, after: Any) -> Form:
    parameters = {**workload.job.parameters, name: after}
    return with_job(
        workload, Change(f"{PATH}.{name}", str(before), str(after)), parameters=parameters
    )


def _fewer_jobs(workload: AnyWorkload) -> Iterator[Form]:
    """Half the workers, then one: each holds its own copies."""
    if not isinstance(workload, FitWorkload) or "n_jobs" not in workload.job.parameters:
        return
    before = workload.job.workers()
    for after in sorted({max(before // 2, 1), 1} - {before}, reverse=True):
        yield _with_parameter(workload, "n_jobs", before, after)


def _fewer_trees(workload: AnyWorkload) -> Iterator[Form]:
    if not isinstance(workload, FitWorkload):
        return
    job = workload.job
    name, usual = TREES.get(job.class_name, ("n_estimators", 100))
    if job.class_name not in TREES and not job.class_name.startswith(BOOSTED):
        return
    if job.rounds is not None:
        before = job.rounds
        change = Change("workload.fit.rounds", str(before), str(before // 2))
        if before > 1:
            yield with_job(workload, change, rounds=before // 2)
        return
    before = job.count(name, usual)
    if before > 1:
        yield _with_parameter(workload, name, before, before // 2)


def _smaller_trees(workload: AnyWorkload) -> Iterator[Form]:
    """Larger leaves in a forest, two levels less in XGBoost, half the leaves in LightGBM."""
    if not isinstance(workload, FitWorkload):
        return
    job = workload.job
    if job.class_name.startswith(FULLY_GROWN):
        before = job.number("min_samples_leaf", 1) or 1
        if before >= 1:
            after = int(before) * LARGER_LEAVES
            yield _with_parameter(workload, "min_samples_leaf", int(before), after)
    elif job.class_name.startswith("XGB"):
        depth = job.count("max_depth", DEPTH)
        if depth > SHALLOWEST + 1:
            yield _with_parameter(workload, "max_depth", depth, depth - 2)
    elif job.class_name.startswith("LGBM"):
        leaves = job.count("num_leaves", LEAVES)
        if leaves >= 2 * FEWEST_LEAVES:
            yield _with_parameter(workload, "num_leaves", leaves, leaves // 2)


def _batches(workload: AnyWorkload) -> Iterator[Form]:
    yield from _streamed(workload, {"xgboost": "QuantileDMatrix", "lightgbm": "Dataset"})


def _external(workload: AnyWorkload) -> Iterator[Form]:
    yield from _streamed(workload, {"xgboost": "ExtMemQuantileDMatrix"})


def _streamed(workload: AnyWorkload, classes: dict[str, str]) -> Iterator[Form]:
    """A boosting library fed batches by an iterator; its sparse tables and GPUs are left alone."""
    if not isinstance(workload, FitWorkload) or workload.on_gpu or workload.job.pool is not None:
        return
    job, after = workload.job, classes.get(workload.job.library)
    if after is None or job.table.sparse or job.class_name == after or job.table.strings:
        return
    if str(job.get("tree_method") or "hist") not in ("auto", "hist"):
        return
    changes = [Change("workload.dataset.container", job.table.container, "streaming")]
    if job.class_name != after:
        field = "workload.model.estimator.class_name"
        changes.append(Change(field, job.class_name, after))
    file = job.file
    if file is not None and not file.chunk_rows:
        field = "workload.dataset.file.chunk_rows"
        changes.append(Change(field, "0", str(BATCH_ROWS)))
        file = replace(file, chunk_rows=BATCH_ROWS)
    table = replace(job.table, container="streaming")
    made = replace(job, class_name=after, table=table, file=file)
    yield replace(workload, job=made), tuple(changes)


def _fixed_thresholds(workload: AnyWorkload) -> Iterator[Form]:
    """Of the boosting libraries, whose freed sketches and samples the estimate counts."""
    if not isinstance(workload, FitWorkload) or workload.job.returns_freed:
        return
    if workload.job.library in ("xgboost", "lightgbm"):
        change = Change("workload.fit.returns_freed_memory", "false", "true")
        yield with_job(workload, change, returns_freed=True)


ESTIMATORS: dict[str, Rule] = {
    "fewer-jobs": _fewer_jobs,
    "fixed-malloc-thresholds": _fixed_thresholds,
    "batch-iterator": _batches,
    "external-memory": _external,
    "fewer-trees": _fewer_trees,
    "smaller-trees": _smaller_trees,
}
