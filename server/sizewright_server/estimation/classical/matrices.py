"""Decompositions, mixtures, centroids and Bayes of scikit-learn: whole-matrix temporaries."""

from __future__ import annotations

from itertools import pairwise

from sizewright_server.estimation.classical.job import FitJob
from sizewright_server.estimation.classical.linear import (
    F8,
    blas_part,
    copies,
    float_copy,
    rows_part,
    square,
    taken_bytes,
)
from sizewright_server.estimation.classical.parts import SKLEARN, Moment, Steps, fit_of, part
from sizewright_server.estimation.classical.registry import estimator
from sizewright_server.estimation.memory import Part

#: Random directions beyond the wanted ones (utils/extmath.py randomized_svd).
OVERSAMPLES = 10


def _model(job: FitJob, rows: int) -> Part:
    size = rows * job.table.columns * F8
    return part("model", size, "components x p x 8 B", f"{rows:,} x {job.table.columns:,}", SKLEARN)


def _components(job: FitJob) -> int:
    least = min(job.table.rows, job.table.columns)
    asked = job.get("n_components")
    if asked is None or isinstance(asked, str):
        return least
    wanted = job.number("n_components") or 0
    return int(least if wanted < 1 else min(wanted, least))


def pca_solver(job: FitJob) -> str:
    """The solver that "auto" takes (decomposition/_pca.py)."""
    known = ("auto", "full", "covariance_eigh", "arpack", "randomized")
    solver = job.word("svd_solver", "auto", known)
    rows, columns = job.table.rows, job.table.columns
    if solver != "auto":
        return solver
    if job.table.sparse:
        return "arpack"
    if columns <= 1000 and rows >= 10 * columns:
        return "covariance_eigh"
    if max(rows, columns) <= 500 or job.get("n_components") == "mle":
        return "full"
    wanted = _components(job)
    fraction = isinstance(job.get("n_components"), float) and job.get("n_components") < 1
    small = not fraction and 1 <= wanted < 0.8 * min(rows, columns)
    return "randomized" if small else "full"


@estimator("scikit-learn", "PCA")
def pca(job: FitJob) -> Steps:
    """By solver: a covariance matrix, a whole SVD, or a random projection of the centred copy."""
    source = f"{SKLEARN}: decomposition/_pca.py"
    table, solver, wanted = job.table, pca_solver(job), _components(job)
    parts = list(float_copy(table))
    if solver == "covariance_eigh":
        parts.append(square("covariance", table.columns, 4, "4 x p² x 8 B", source))
    elif solver == "full":
        text = "centred X + LAPACK's copy + U"
        parts.append(copies("svd", table, 3, text, source))
    else:
        if not table.sparse:
            parts.append(copies("centred-features", table, 1, "centred X", source))
        parts.append(_projections(job, wanted, 4))
    projected = rows_part("projected", table, wanted * taken_bytes(table), "n x components", source)
    if solver in ("randomized", "arpack") and not table.sparse:
        parts.append(blas_part(job, table.columns))
    moved = (projected, blas_part(job, table.columns))
    return fit_of(*parts, model=(_model(job, wanted),), predict=moved)


def _projections(job: FitJob, wanted: int, count: int) -> Part:
    """Tall matrices of the random projection: the power iteration's LU has its input, L and PL."""
    width = wanted + OVERSAMPLES
    return rows_part(
        "projections",
        job.table,
        count * width * taken_bytes(job.table),
        f"{count} x n x (components + {OVERSAMPLES})",
        f"{SKLEARN}: utils/extmath.py randomized_range_finder",
    )


@estimator("scikit-learn", "IncrementalPCA")
def incremental_pca(job: FitJob) -> Steps:
    """A copy of X, then batch by batch."""
    source = f"{SKLEARN}: decomposition/_incremental_pca.py"
    held = copies("features-copy", job.table, 1, "check_array(copy=True)", source)
    return fit_of(held, model=(_model(job, _components(job)),))


@estimator("scikit-learn", "TruncatedSVD")
def truncated_svd(job: FitJob) -> Steps:
    """The random projection of X itself, then X less its mean for the variance."""
    source = f"{SKLEARN}: decomposition/_truncated_svd.py"
    table, wanted = job.table, job.count("n_components", 2)
    tall = _projections(job, wanted, 3)
    moments = [Moment("fit-projection", (*float_copy(table), _projections(job, wanted, 4)))]
    if not table.sparse:
        variance = copies("centred-features", table, 1, "numpy.var's X - mean", source)
        moments.append(Moment("fit-variance", (*float_copy(table), tall, variance)))
    projected = rows_part("projected", table, wanted * taken_bytes(table), "n x components", source)
    return Steps(tuple(moments), (_model(job, wanted),), (projected,))


@estimator("scikit-learn", "NMF", "MiniBatchNMF")
def factorisation(job: FitJob) -> Steps:
    """The singular vectors of the start, then factors; a dense error is computed as X - W H."""
    source = f"{SKLEARN}: decomposition/_nmf.py"
    table, wanted = job.table, _components(job)
    item = taken_bytes(table)
    factors = rows_part("factors", table, wanted * item, "n x k", source)
    first = Moment("fit-start", (*float_copy(table), _projections(job, wanted, 5), factors))
    held: tuple[Part, ...] = (factors, blas_part(job, table.columns))
    if not table.sparse:
        held = (*held, copies("reconstruction", table, 2, "W H, and X - W H", source))
    model = (_model(job, wanted),)
    last = Moment("fit-error", (*float_copy(table), *held, *model))
    return Steps((first, last), model, (*held, factors))


@estimator("scikit-learn", "LatentDirichletAllocation")
def topics(job: FitJob) -> Steps:
    """A batch of rows at a time: topics of each row, and word probabilities of the batch."""
    source = f"{SKLEARN}: decomposition/_lda.py"
    table, wanted = job.table, job.count("n_components", 10)
    topics_part = rows_part("topics", table, 3 * wanted * F8, "3 x n x k x 8 B", source)
    whole = job.word("learning_method", "batch", ("batch", "online")) == "batch"
    rows = table.rows if whole else min(table.rows, job.count("batch_size", 128))
    each = table.columns * 3 * F8 if not table.sparse else 0
    ids = part("row-words", min(rows, 1) * each, "3 x p x 8 B", f"{each:,} B", source)
    model = part(
        "model",
        4 * wanted * table.columns * F8,
        "4 x k x p x 8 B",
        f"4 x {wanted:,} x {table.columns:,} x 8 B",
        source,
    )
    return fit_of(*float_copy(table), topics_part, ids, model=(model,), predict=(topics_part,))


@estimator("scikit-learn", "KMeans", "BisectingKMeans")
def k_means(job: FitJob) -> Steps:
    """X less its mean is a copy; the variance for the tolerance is one more for a moment."""
    source = f"{SKLEARN}: cluster/_kmeans.py"
    table, clusters = job.table, job.count("n_clusters", 8)
    parts = list(float_copy(table, c_order=True))
    if not table.sparse:
        copied = 1 if job.get("copy_x", True) else 0
        text = "centred X, and numpy.var's X - mean"
        parts.append(copies("centred-features", table, copied + 1, text, source))
    parts.append(rows_part("labels", table, 4 * 4 + F8, "labels, norms, weights", source))
    scores = rows_part("distances", table, clusters * F8, "n x k x 8 B", source)
    return fit_of(*parts, model=(_model(job, clusters),), predict=(scores,))


@estimator("scikit-learn", "MiniBatchKMeans")
def mini_batch_k_means(job: FitJob) -> Steps:
    """No copy of X: labels, norms and weights per row."""
    source = f"{SKLEARN}: cluster/_kmeans.py MiniBatchKMeans"
    arrays = rows_part("row-arrays", job.table, 28, "labels, weights, last order", source)
    model = (_model(job, job.count("n_clusters", 8)),)
    return fit_of(*float_copy(job.table, c_order=True), arrays, model=model)


@estimator("scikit-learn", "GaussianMixture", "BayesianGaussianMixture")
def mixture(job: FitJob) -> Steps:
    """Responsibilities, and X three times: times the precisions, less the mean, squared.

    Diagonal and spherical covariances need X² alone.
    """
    source = f"{SKLEARN}: mixture/_gaussian_mixture.py _estimate_log_gaussian_prob"
    table, kinds = job.table, job.count("n_components", 1)
    item = taken_bytes(table)
    shape = job.word("covariance_type", "full", ("full", "tied", "diag", "spherical"))
    whole = shape in ("full", "tied")
    many = rows_part("responsibilities", table, 2 * kinds * item, "2 x n x k", source)
    moved = copies("differences", table, 3 if whole else 2, "X P, X P - m, squared", source)
    # Normalising them exponentiates differences to the largest.
    normal = rows_part("log-responsibilities", table, 6 * kinds * item, "6 x n x k", source)
    model = part(
        "model",
        kinds * table.columns * (table.columns + 1) * 2 * F8,
        "2 x k x p (p + 1) x 8 B",
        f"{kinds:,} x {table.columns:,}²",
        source,
    )
    busy = (many, moved, blas_part(job, table.columns))
    moments = (
        Moment("fit-densities", (*float_copy(table), *busy, model)),
        Moment("fit-responsibilities", (*float_copy(table), normal, model)),
    )
    return Steps(moments, (model,), busy)


@estimator("scikit-learn", "GaussianNB")
def gaussian_bayes(job: FitJob) -> Steps:
    """A class's rows, and their distance to the mean."""
    share = max(1.0, 2 / max(job.table.classes, 1))
    source = f"{SKLEARN}: naive_bayes.py"
    text = "numpy.var's X - mean, or a class's rows and theirs"
    held = copies("class-rows", job.table, share, text, source)
    log = rows_part(
        "log-probabilities", job.table, 2 * F8 * max(job.table.classes, 2), "2 n k", source
    )
    predict = (copies("differences", job.table, 2, "(X - mean)² / variance", source), log)
    return fit_of(*float_copy(job.table), held, model=(_model(job, 2),), predict=predict)


@estimator("scikit-learn", "MultinomialNB", "BernoulliNB", "ComplementNB", "CategoricalNB")
def discrete_bayes(job: FitJob) -> Steps:
    """One-hot labels against X; BernoulliNB binarises a copy."""
    source = f"{SKLEARN}: naive_bayes.py"
    table = job.table
    labels = rows_part(
        "one-hot-labels", table, 2 * F8 * max(table.classes, 2), "2 n k x 8 B", source
    )
    copied: tuple[Part, ...] = ()
    if job.class_name == "BernoulliNB" and not table.sparse:
        copied = (
            copies("binarised", table, 1, "X > threshold", source),
            part("mask", table.elements, "n x p x 1 B", f"{table.elements:,} B", source),
        )
    return fit_of(*float_copy(table), *copied, labels, model=(_model(job, table.classes or 1),))


@estimator("scikit-learn", "LinearDiscriminantAnalysis")
def linear_discriminant(job: FitJob) -> Steps:
    """svd: centred X, scaled X, LAPACK's copy and U, and the last class's rows."""
    source = f"{SKLEARN}: discriminant_analysis.py _solve_svd"
    table = job.table
    if job.word("solver", "svd", ("svd", "lsqr", "eigen")) != "svd":
        held = copies("class-rows", table, 2 / max(table.classes, 1), "class rows, centred", source)
    else:
        share = 4 + 1 / max(table.classes, 1)
        held = copies("centred-and-svd", table, share, "(4 + 1/k) X", source)
    return fit_of(*float_copy(table), held, model=(_model(job, table.classes or 1),))


@estimator("scikit-learn", "QuadraticDiscriminantAnalysis")
def quadratic_discriminant(job: FitJob) -> Steps:
    """Each class by itself: its rows, centred, LAPACK's copy, U, and the last class's rows."""
    source = f"{SKLEARN}: discriminant_analysis.py"
    table = job.table
    share = 5 / max(table.classes, 1)
    held = copies("class-svd", table, share, "5 x X / k", source)
    return fit_of(*float_copy(table), held, model=(_model(job, table.columns),))


@estimator("scikit-learn", "MLPClassifier", "MLPRegressor")
def perceptron(job: FitJob) -> Steps:
    """Weights with Adam's two moments and gradients; activations and deltas of one batch."""
    source = f"{SKLEARN}: neural_network/_multilayer_perceptron.py"
    table, item = job.table, taken_bytes(job.table)
    hidden = job.get("hidden_layer_sizes", (100,))
    widths = [hidden] if isinstance(hidden, int) else list(hidden)
    last = 1 if job.class_name.endswith("Regressor") or table.classes <= 2 else table.classes
    sizes = [table.columns, *(int(width) for width in widths), last]
    weights = sum((a + 1) * b for a, b in pairwise(sizes))
    kept = {"adam": 5, "sgd": 3, "lbfgs": 26}[job.word("solver", "adam", ("adam", "sgd", "lbfgs"))]
    asked = job.get("batch_size", "auto")
    auto = min(200, table.rows) if asked == "auto" else job.count("batch_size", 200)
    rows = table.rows if job.get("solver") == "lbfgs" else auto
    states = part(
        "weights-and-moments",
        kept * weights * item,
        "copies x weights",
        f"{kept} x {weights:,}",
        source,
    )
    acts = part(
        "activations",
        3 * rows * sum(sizes) * item,
        "3 x batch x units",
        f"{rows:,} x {sum(sizes):,}",
        source,
    )
    order = rows_part("row-arrays", table, 2 * F8 + F8 * last, "order, labels", source)
    # A layer's input is freed when its output is there; the table itself is the first input.
    widest = max((a + b for a, b in pairwise([0, *sizes[1:]])), default=last)
    predicted = rows_part(
        "activations", table, item * widest, "n x two neighbouring layers", source
    )
    split = copies("validation-split", table, 1, "rows of both sides", source)
    held = (split,) if job.get("early_stopping", False) else ()
    moved = (predicted, blas_part(job, table.columns))
    return fit_of(*float_copy(table), *held, states, acts, order, predict=moved)
