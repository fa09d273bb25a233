"""scikit-learn jobs: an estimator by class name, a grid search, or a pipeline."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from reading import Marks

#: Where estimators live. `all_estimators` would import what scikit-learn does not need, torch among
#: it, where that is installed.
MODULES = (
    "linear_model", "ensemble", "cluster", "decomposition", "preprocessing", "svm", "tree",
    "neighbors", "naive_bayes", "mixture", "discriminant_analysis", "neural_network", "impute",
    "manifold", "kernel_ridge", "gaussian_process", "feature_selection", "feature_extraction.text",
    "random_projection", "kernel_approximation", "calibration", "multiclass", "multioutput",
    "dummy", "isotonic", "semi_supervised", "cross_decomposition", "covariance", "model_selection",
    "compose", "pipeline",
)  # fmt: skip

FUNCTIONS = ("cross_val_score", "cross_validate", "cross_val_predict", "train_test_split")


class Classes:
    """Estimators by name; a module is imported when one of its names is asked for."""

    def __getitem__(self, name: str) -> Any:
        """The class. Raises KeyError."""
        if name == "IterativeImputer":
            import sklearn.experimental.enable_iterative_imputer  # noqa: F401
        for module in MODULES:
            found = getattr(import_module(f"sklearn.{module}"), name, None)
            if found is not None:
                return found
        raise KeyError(name)


def run(workload: dict[str, Any], marks: Marks) -> dict[str, Any]:
    """Makes the table, fits, and runs the further operations of `ops`."""
    import sklearn.ensemble
    import sklearn.linear_model
    import sklearn.pipeline  # noqa: F401

    classes = Classes()
    from tables import learnable_target, make_matrix, make_target

    marks.set("imports")
    data = workload["data"]
    matrix = make_matrix(data)
    target = (learnable_target if data.get("learnable", True) else _blind(make_target))(
        matrix, data
    )
    marks.set("data")
    if workload["task"] in FUNCTIONS:
        _validate(workload, matrix, target, classes)
        marks.set("fit")
        return {}
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


def _estimator(workload: dict[str, Any], classes: Classes) -> Any:
    parameters = dict(workload.get("params", {}))
    if workload["task"] in ("GridSearchCV", "RandomizedSearchCV"):
        from sklearn.model_selection import GridSearchCV

        inner = classes[workload["estimator"]](**parameters)
        return GridSearchCV(
            inner, workload["grid"], cv=workload["cv"], n_jobs=workload.get("n_jobs")
        )
    if workload["task"] == "Pipeline":
        from sklearn.pipeline import make_pipeline

        return make_pipeline(*(_one(step, classes) for step in workload["steps"]))
    if "estimators" in workload:
        members = [(f"m{i}", _one(e, classes)) for i, e in enumerate(workload["estimators"])]
        return classes[workload["task"]](members, **parameters)
    if "estimator" in workload:
        inner = classes[workload["estimator"]](**parameters)
        return classes[workload["task"]](inner, **workload.get("outer", {}))
    return classes[workload["task"]](**parameters)


def _one(step: dict[str, Any], classes: Classes) -> Any:
    return classes[step["task"]](**step.get("params", {}))


def _validate(workload: dict[str, Any], matrix: Any, target: Any, classes: Classes) -> None:
    """A function of model selection in place of an estimator's fit."""
    from sklearn import model_selection

    function = getattr(model_selection, workload["task"])
    if workload["task"] == "train_test_split":
        kept = function(matrix, target, **workload.get("params", {}))
        del kept
        return
    inner = classes[workload["estimator"]](**workload.get("params", {}))
    function(inner, matrix, target, cv=workload["cv"], n_jobs=workload.get("n_jobs"))
