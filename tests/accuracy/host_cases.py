"""Maps measured host memory: scikit-learn, XGBoost, LightGBM, pandas, and networks on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.accuracy.case import Case, Unmapped
from tests.accuracy.host_network_cases import estimate_frame, estimate_network

from sizewright_server.estimation.classical.estimate import estimate_fit
from sizewright_server.estimation.classical.job import FitJob, Strings, Table
from sizewright_server.estimation.memory import MemoryEstimate
from sizewright_server.estimation.problems import UnsupportedWorkload

LIBRARIES = {"sklearn": "scikit-learn", "xgboost": "xgboost", "lightgbm": "lightgbm"}
#: Operations by scikit-learn's names; what is not here predicts in some way.
OPERATIONS = {
    "fit": "fit",
    "fit_transform": "fit-transform",
    "transform": "transform",
    "predict_proba": "predict-proba",
}
CONTAINERS = {
    "csr": "csr",
    "sparse": "csr",
    "pandas": "pandas",
    "df": "pandas",
    "dataframe": "pandas",
    "arrow": "arrow",
    "memmap": "memory-mapped",
}


def estimate_host(case: Case) -> MemoryEstimate:
    """The estimate of a case. Raises Unmapped and UnsupportedWorkload."""
    try:
        return _estimate(case["workload"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UnsupportedWorkload):
            raise
        raise Unmapped(f"the case lacks or mistakes {error}") from error


def _estimate(work: Case) -> MemoryEstimate:
    framework = str(work.get("fw") or work.get("framework"))
    if framework in LIBRARIES:
        return estimate_fit(fit_job(work))
    if framework == "pandas":
        return estimate_frame(work)
    if framework in ("torch", "tf", "tensorflow", "keras"):
        return estimate_network(work)
    raise Unmapped(f"framework {framework!r} is not known")


def fit_job(work: Case) -> FitJob:
    """The job of a case of scikit-learn, XGBoost or LightGBM."""
    return _job(work, str(work.get("fw") or work.get("framework")))


def _job(work: Case, framework: str) -> FitJob:
    table = _table(work.get("data") or {}, unsupervised=bool(work.get("unsup")))
    settings: Mapping[str, Any] = work.get("settings") or {}
    parameters = dict(work.get("params") or {})
    name = str(work.get("task") or work.get("api"))
    if framework != "sklearn":
        name = _booster(framework, str(work.get("api") or "sklearn"), table)
    if name in ("GridSearchCV", "RandomizedSearchCV", "cross_val_score", "cross_validate"):
        inner = {"class_name": work["estimator"], "hyper_parameters": parameters}
        parameters = {"estimator": inner, "cv": work.get("cv") or 5, "n_jobs": work.get("n_jobs")}
    elif "estimator" in work:
        inner = {"class_name": work["estimator"], "hyper_parameters": parameters}
        parameters = {"estimator": inner, **(work.get("outer") or {})}
    if "estimators" in work:
        parameters["estimators"] = [_step(step) for step in work["estimators"]]
    if name in ("Pipeline", "make_pipeline"):
        parameters = {"steps": [_step(step) for step in work.get("steps") or ()]}
    asked = tuple(OPERATIONS.get(str(o), "predict") for o in work.get("ops") or ("fit",))
    rounds = work.get("rounds")
    return FitJob(
        LIBRARIES[framework],
        name,
        table,
        parameters,
        operations=asked,
        rounds=None if rounds is None else int(rounds),
        threads=int(settings.get("threads_per_library") or 2),
        predict_rows=int(work.get("predict_rows") or work.get("n_predict") or 0),
        frees_table=bool(work.get("del_raw")) and work.get("free_raw_data") is not False,
        versions=work.get("versions") or {},
    )


def _step(step: Any) -> Any:
    if isinstance(step, str):
        return {"class_name": step}
    if isinstance(step, list):
        name, parameters = step[0], step[1] if len(step) > 1 else {}
        return {"class_name": name, "hyper_parameters": parameters}
    name = step.get("task") or step.get("class_name") or step.get("name")
    return {"class_name": name, "hyper_parameters": step.get("params") or {}}


def _booster(framework: str, api: str, table: Table) -> str:
    if api != "sklearn":
        return api
    kind = "Classifier" if table.classes else "Regressor"
    return f"{'XGB' if framework == 'xgboost' else 'LGBM'}{kind}"


def _table(data: Case, *, unsupervised: bool) -> Table:
    classes = data.get("classes")
    dtype, strings = str(data.get("dtype") or "float64"), None
    if dtype in ("str", "string", "object", "category"):
        storage: Any = {"object": "object", "category": "categorical"}
        kept = storage.get(str(data.get("storage") or dtype), "arrow")
        distinct = data.get("categories") or data.get("cardinality")
        length = int(data.get("str_len") or 12)
        strings = Strings(int(data.get("cols") or 1), length, distinct, kept)
    return Table(
        int(data.get("rows") or 0),
        int(data.get("cols") or 1),
        "int64" if strings else dtype,
        CONTAINERS.get(str(data.get("kind") or ""), "numpy"),
        float(data.get("density") or 1.0),
        0 if unsupervised else 2 if classes is None else int(classes),
        data.get("order") == "F",
        float(data.get("missing") or 0.0),
        int(data.get("categories") or data.get("cardinality") or 0),
        int(data.get("tokens") or data.get("words") or 0),
        strings,
    )
