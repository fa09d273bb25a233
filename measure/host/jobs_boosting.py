"""XGBoost and LightGBM jobs, through their own API or the scikit-learn wrapper."""

from __future__ import annotations

from typing import Any

from reading import Marks


def run(workload: dict[str, Any], marks: Marks) -> dict[str, Any]:
    """Makes the table, then trains as `api` says."""
    return _xgboost(workload, marks) if workload["fw"] == "xgboost" else _lightgbm(workload, marks)


def _objective(library: str, classes: int) -> dict[str, Any]:
    if library == "xgboost":
        names = {0: "reg:squarederror", 2: "binary:logistic"}
        many = "multi:softprob"
    else:
        names = {0: "regression", 2: "binary"}
        many = "multiclass"
    made: dict[str, Any] = {"objective": names.get(classes, many)}
    return {**made, "num_class": classes} if classes > 2 else made


def _table(data: dict[str, Any], marks: Marks) -> tuple[Any, Any]:
    from tables import learnable_target, make_matrix

    matrix = make_matrix(data)
    target = learnable_target(matrix, data)
    marks.set("data")
    return matrix, target


def _xgboost(workload: dict[str, Any], marks: Marks) -> dict[str, Any]:
    import sklearn.linear_model  # noqa: F401  the wrapper's base classes
    import xgboost as xgb

    marks.set("imports")
    data, parameters = workload["data"], dict(workload.get("params", {}))
    matrix, target = _table(data, marks)
    rounds, classes = workload.get("rounds", 20), data.get("classes", 2)
    if workload["api"] == "sklearn":
        kind = xgb.XGBClassifier if classes else xgb.XGBRegressor
        model = kind(n_estimators=rounds, n_jobs=workload.get("threads", 2), **parameters).fit(
            matrix, target
        )
        marks.set("fit")
        if "predict" in workload.get("ops", ()):
            model.predict(matrix)
            marks.set("predict")
        return {}
    kind = getattr(xgb, workload["api"])
    keep = {"max_bin": parameters["max_bin"]} if "max_bin" in parameters else {}
    made = kind(matrix, target, **(keep if workload["api"] == "QuantileDMatrix" else {}))
    marks.set("dmatrix")
    if workload.get("del_raw"):
        del matrix
    booster = xgb.train(
        {**_objective("xgboost", classes), "nthread": workload.get("threads", 2), **parameters},
        made,
        rounds,
    )
    marks.set("train")
    if "predict" in workload.get("ops", ()):
        booster.predict(made)
        marks.set("predict")
    return {}


def _lightgbm(workload: dict[str, Any], marks: Marks) -> dict[str, Any]:
    import lightgbm as lgb

    marks.set("imports")
    data, parameters = workload["data"], dict(workload.get("params", {}))
    matrix, target = _table(data, marks)
    rounds, classes = workload.get("rounds", 20), data.get("classes", 2)
    if workload["api"] == "sklearn":
        kind = lgb.LGBMClassifier if classes else lgb.LGBMRegressor
        model = kind(
            n_estimators=rounds, n_jobs=workload.get("threads", 2), verbose=-1, **parameters
        ).fit(matrix, target)
        marks.set("fit")
        if "predict" in workload.get("ops", ()):
            model.predict(matrix)
            marks.set("predict")
        return {}
    settings = {
        **_objective("lightgbm", classes),
        "num_threads": workload.get("threads", 2),
        "verbose": -1,
        **parameters,
    }
    keep = {"free_raw_data": workload["free_raw_data"]} if "free_raw_data" in workload else {}
    made = lgb.Dataset(matrix, target, params=settings, **keep)
    made.construct()
    if workload.get("del_raw"):
        del matrix
    marks.set("construct")
    lgb.train(settings, made, rounds)
    marks.set("train")
    return {}
