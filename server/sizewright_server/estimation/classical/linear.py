"""Linear models of scikit-learn, by solver. Symbols: n rows, p columns, k classes, X the matrix."""

from __future__ import annotations

from dataclasses import replace

from sizewright_server.estimation.classical.job import FitJob, Table
from sizewright_server.estimation.classical.parts import (
    CODE,
    EXACT,
    SKLEARN,
    Doubt,
    Steps,
    fit_of,
    part,
)
from sizewright_server.estimation.classical.registry import estimator
from sizewright_server.estimation.memory import Part

F8 = 8
#: A packed panel's rows times their bytes, and its columns at most (OpenBLAS GEMM_R, GEMM_Q).
BLAS_PANEL_BYTES = 2**17
BLAS_INNER = 320


def float_copy(table: Table, *, only: str | None = None, c_order: bool = False) -> tuple[Part, ...]:
    """The copy that validation makes of a matrix in a type or order the solver does not take.

    `only` is the one type it takes; None means float32 and float64 (others become float64).
    """
    wanted = only or (table.dtype if table.floating else "float64")
    turned = c_order and table.fortran_order and not table.sparse
    if wanted == table.dtype and not turned:
        return ()
    item = {"float64": 8, "float32": 4}[wanted]
    return (
        part(
            "converted-features",
            table.matrix_bytes(item),
            f"X as {wanted}",
            f"{table.rows:,} x {table.columns:,} x {item} B",
            f"{SKLEARN}: utils.validation.check_array(dtype, order)",
            EXACT,
        ),
    )


def taken_bytes(table: Table) -> int:
    """Bytes of an element after validation: floats stay, the rest becomes float64."""
    return table.item_bytes if table.floating else F8


def rows_part(name: str, table: Table, per_row: float, formula: str, source: str) -> Part:
    """An array of so many bytes a row."""
    numbers = f"{table.rows:,} x {per_row:g} B"
    return part(name, table.rows * per_row, formula, numbers, source, CODE)


def copies(name: str, table: Table, count: float, formula: str, source: str) -> Part:
    """So many dense copies of X in its own float type."""
    size = table.elements * taken_bytes(table)
    return part(name, count * size, formula, f"{count:g} x {size:,} B", source, CODE)


def blas_part(job: FitJob, inner: int, rows: int | None = None) -> Part:
    """What OpenBLAS packs while a tall matrix is multiplied: a panel on each thread.

    A panel has up to 128 KiB / item bytes rows and `inner` columns, at most 320 (GEMM_Q); on one
    thread it is small. numpy.matmul on 2 threads: 25.7 MiB for 200,000 x 100, 63.5 MiB for
    50,000 x 500, 5.9 MiB for 200,000 x 20, 0.4 MiB on one.
    """
    item, threads = taken_bytes(job.table), max(1, job.threads)
    tall = min(-(-(rows or job.table.rows) // threads), BLAS_PANEL_BYTES // item)
    panels = threads * tall * min(inner, BLAS_INNER) * item if threads > 1 else 0
    numbers = f"{threads} x {tall:,} x {min(inner, BLAS_INNER)} x {item} B"
    doubt = Doubt(0.3, 1.3, "medium")
    source = "OpenBLAS driver/level3/level3_thread.c, measured with numpy 2.4"
    return part("blas-panels", panels, "threads x panel rows x columns", numbers, source, doubt)


def square(name: str, side: int, count: int, formula: str, source: str) -> Part:
    """So many float64 matrices of side x side."""
    return part(name, count * side * side * F8, formula, f"{count} x {side:,}² x 8 B", source)


def coefficients(job: FitJob, *, per_class: int = 1) -> Part:
    """What a linear model keeps."""
    size = (job.table.columns + 1) * F8 * max(per_class, 1)
    return part("model", size, "k x (p + 1) x 8 B", f"{size:,} B", f"{SKLEARN}: coef_", EXACT)


def outputs(table: Table) -> int:
    """Columns of the raw prediction: one for two classes or regression, else one a class."""
    return table.classes if table.classes > 2 else 1


@estimator("scikit-learn", "LinearRegression")
def linear_regression(job: FitJob) -> Steps:
    """Centred copy, and the copy that LAPACK's gelsd overwrites."""
    table = job.table
    if table.sparse:
        work = rows_part("lsqr-work", table, 3 * F8, "3 x n x 8 B", f"{SKLEARN}: sparse lsqr")
        return fit_of(work, model=(coefficients(job),))
    held = 2.0 if job.get("copy_X", True) else 1.0
    copied = copies(
        "centred-and-solved",
        table,
        held,
        "centred X + gelsd's copy",
        f"{SKLEARN}: linear_model/_base.py, scipy.linalg.lstsq",
    )
    extra = rows_part("target-copies", table, 2 * F8, "2 x n x 8 B", f"{SKLEARN}: _preprocess_data")
    return fit_of(*float_copy(table), copied, extra, model=(coefficients(job),))


@estimator("scikit-learn", "Ridge", "RidgeClassifier")
def ridge(job: FitJob) -> Steps:
    """One centred copy; the solver's own arrays beside it."""
    table, kinds = job.table, ("auto", "cholesky", "svd", "lsqr", "sparse_cg", "sag", "saga")
    solver = job.word("solver", "auto", (*kinds, "lbfgs"))
    source = f"{SKLEARN}: linear_model/_ridge.py"
    parts = list(float_copy(table))
    if not table.sparse and job.get("copy_X", True):
        # A classifier weighs its rows, which makes one more.
        count = 2 if job.class_name == "RidgeClassifier" else 1
        parts.append(copies("centred-features", table, count, "X centred, and weighted", source))
    if solver in ("auto", "cholesky") and not table.sparse:
        side = min(table.rows, table.columns)
        parts.append(square("normal-matrix", side, 2, "X'X, or XX' where n < p", source))
    elif solver == "svd":
        parts.append(copies("svd", table, 3, "X and U, by row and by column", "scipy.linalg.svd"))
    many = 4 if job.class_name == "RidgeClassifier" else 2
    text = "targets some times: n x k x 8 B"
    parts.append(rows_part("targets", table, many * F8 * outputs(table), text, source))
    return fit_of(*parts, model=(coefficients(job, per_class=outputs(table)),))


@estimator("scikit-learn", "RidgeCV", "RidgeClassifierCV")
def ridge_cv(job: FitJob) -> Steps:
    """Leave-one-out over one decomposition of the centred copy."""
    source = f"{SKLEARN}: _ridge.py _RidgeGCV, svd of X where n > p, XX' else"
    # Leave-one-out takes float64 alone.
    converted = float_copy(job.table, only="float64")
    table = replace(job.table, dtype="float64")
    parts = [copies("centred-features", table, 1, "centred X", source)]
    if table.rows > table.columns:
        parts.append(copies("svd", table, 2, "LAPACK's copy + U", source))
    else:
        parts.append(square("gram", table.rows, 3, "XX', its copy and vectors", source))
    return fit_of(*converted, *parts, model=(coefficients(job),))


@estimator("scikit-learn", "Lasso", "ElasticNet", "MultiTaskLasso", "MultiTaskElasticNet")
def coordinate_descent(job: FitJob) -> Steps:
    """A copy in Fortran order, which the descent walks by column."""
    table = job.table
    source = f"{SKLEARN}: linear_model/_coordinate_descent.py"
    parts = list(float_copy(table)) if not table.floating else []
    if not table.sparse and job.get("copy_X", True):
        parts.append(copies("column-order-copy", table, 1, "X, centred, by column", source))
    if job.get("precompute", False):
        parts.append(square("gram", table.columns, 1, "X'X", source))
    parts.append(rows_part("residual", table, 2 * F8, "residual and target", source))
    return fit_of(*parts, model=(coefficients(job),))


@estimator("scikit-learn", "LassoCV", "ElasticNetCV")
def coordinate_descent_cv(job: FitJob) -> Steps:
    """Each running fold has its training rows twice: as taken, and centred by column."""
    table, workers = job.table, job.workers()
    folds = max(2, job.count("cv", 5))
    source = f"{SKLEARN}: _coordinate_descent.py _path_residuals, one fold a thread"
    running = min(workers, folds)
    share = 2 * running * (1 - 1 / folds)
    fold = copies("folds", table, share, "2 x jobs x (1 - 1/cv) X", source)
    whole = copies("column-order-copy", table, 1, "X by column", source)
    return fit_of(*float_copy(table), whole, fold, model=(coefficients(job),))


@estimator("scikit-learn", "LogisticRegression", "LogisticRegressionCV")
def logistic_regression(job: FitJob) -> Steps:
    """By solver; the matrix itself is not copied unless its type or order is not taken."""
    table = job.table
    known = ("lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga")
    solver = job.word("solver", "lbfgs", known)
    source = f"{SKLEARN}: linear_model/_logistic.py, _linear_loss.py"
    width = outputs(table) * taken_bytes(table)
    parts = list(float_copy(table, c_order=True))
    if solver == "liblinear":
        parts += liblinear(table)
    elif solver in ("sag", "saga"):
        per_row = width + 3 * F8 + 4
        text = "a gradient kept for each row, weights, targets, seen: n x (8 k + 28) B"
        parts.append(rows_part("loss-arrays", table, per_row, text, source))
    else:
        per_row = 4 * width
        text = "raw predictions, gradient, weights and one temporary: 4 x n x k"
        parts.append(rows_part("loss-arrays", table, per_row, text, source))
        if job.class_name.endswith("CV"):
            parts.append(copies("folds", table, 1, "training rows + test rows", source))
        if outputs(table) > 1 and not table.sparse:
            parts.append(blas_part(job, table.columns))
    if solver == "newton-cg":
        text = "weighted X and its product in the Hessian"
        parts.append(copies("hessian-products", table, 2, text, source))
    if solver == "newton-cholesky":
        parts.append(copies("weighted-features", table, 1, "weights x X", source))
        parts.append(square("hessian", table.columns * outputs(table), 2, "(p k)²", source))
    return fit_of(*parts, model=(coefficients(job, per_class=outputs(table)),))


def liblinear(table: Table) -> list[Part]:
    """LIBLINEAR's own copy: a node of index and value for each non-zero, and the ends of rows."""
    nodes = table.stored_elements + 2 * table.rows
    source = "LIBLINEAR in scikit-learn: linear_helper.c dense_to_sparse; feature_node is 16 B"
    return [
        part(
            "liblinear-nodes", nodes * 16, "(n p + 2 n) x 16 B", f"{nodes:,} x 16 B", source, EXACT
        ),
        rows_part("solver-arrays", table, 64, "weights, duals, order, pointers", source),
    ]


@estimator("scikit-learn", "LinearSVC", "LinearSVR")
def linear_svc(job: FitJob) -> Steps:
    """LIBLINEAR over a float64 matrix."""
    parts = (*float_copy(job.table, only="float64", c_order=True), *liblinear(job.table))
    return fit_of(*parts, model=(coefficients(job, per_class=outputs(job.table)),))


@estimator("scikit-learn", "SGDClassifier", "SGDRegressor", "Perceptron", "SGDOneClassSVM")
@estimator("scikit-learn", "PassiveAggressiveClassifier", "PassiveAggressiveRegressor")
def stochastic_gradient(job: FitJob) -> Steps:
    """No copy of a float matrix in C order; targets and weights per row."""
    table = job.table
    source = f"{SKLEARN}: linear_model/_stochastic_gradient.py"
    parts = [rows_part("row-arrays", table, 20, "weights, signs, order: 20 B a row", source)]
    if job.get("early_stopping", False):
        share = job.number("validation_fraction", 0.1) or 0
        size = share * table.matrix_bytes(taken_bytes(table))
        text = "rows of the validation side"
        parts.append(part("validation-rows", size, text, f"{share:g} X", source))
        parts.append(rows_part("split", table, 5 * F8, "shuffled indices of both sides", source))
    model = (coefficients(job, per_class=outputs(table)),)
    return fit_of(*float_copy(table, c_order=True), *parts, model=model)
