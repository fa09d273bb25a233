"""scikit-learn jobs: an estimator by class name, a grid search, or a pipeline."""

from __future__ import annotations

from typing import Any

from reading import Marks


def run(workload: dict[str, Any], marks: Marks) -> dict[str, Any]:
    """Makes the table, fits, and runs the further operations of `ops`."""
    import sklearn.ensemble
    import sklearn.linear_model
    import sklearn.pipeline
    from sklearn.utils import all_estimators

    classes: dict[str, Any] = {}
    if workload["task"] not in dir(sklearn.linear_model) + dir(sklearn.ensemble):
        classes = dict(all_estimators())
    for module in (sklearn.linear_model, sklearn.ensemble):
        classes.update({name: getattr(module, name) for name in module.__all__})
    from tables import learnable_target, make_matrix, make_target

    marks.set("imports")
    data = workload["data"]
    matrix = make_matrix(data)
    target = (learnable_target if data.get("learnable", True) else _blind(make_target))(
        matrix, data
    )
    marks.set("data")
    estimator = _estimator(workload, classes)
    arguments = (matrix,) if workload.get("unsup") else (matrix, target)
    facts: dict[str, Any] = {}
    for operation in workload.get("ops", ["fit"]):
        if operation == "fit":
            estimator.fit(*arguments)
        elif operation == "fit_transform":
            estimator.fit_transform(*arguments)
        else:
            getattr(estimator, operation)(matrix[: workload.get("predict_rows") or len(target)])
        marks.set(operation)
    trees = getattr(estimator, "estimators_", None)
    if trees is not None and hasattr(trees, "__len__"):
        flat = [t for t in getattr(trees, "flat", trees) if hasattr(t, "tree_")]
        facts["total_nodes"] = sum(t.tree_.node_count for t in flat)
    elif hasattr(estimator, "tree_"):
        facts["total_nodes"] = estimator.tree_.node_count
    support = getattr(estimator, "support_", None)
    if support is not None:
        facts["support"] = len(support)
    return facts


def _blind(make: Any) -> Any:
    return lambda _matrix, data: make(data)


def _estimator(workload: dict[str, Any], classes: dict[str, Any]) -> Any:
    parameters = dict(workload.get("params", {}))
    if workload["task"] in ("GridSearchCV", "RandomizedSearchCV"):
        from sklearn.model_selection import GridSearchCV

        inner = classes[workload["estimator"]](**parameters)
        return GridSearchCV(
            inner, workload["grid"], cv=workload["cv"], n_jobs=workload.get("n_jobs")
        )
    if workload["task"] == "Pipeline":
        from sklearn.pipeline import make_pipeline

        steps = [classes[s["task"]](**s.get("params", {})) for s in workload["steps"]]
        return make_pipeline(*steps)
    return classes[workload["task"]](**parameters)
