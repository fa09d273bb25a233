"""Neighbours, support vectors and density clusters of scikit-learn: what pairs of rows cost."""

from __future__ import annotations

import math
from dataclasses import replace

from sizewright_server.estimation.classical.constants import MIB, constant
from sizewright_server.estimation.classical.job import FitJob, Table
from sizewright_server.estimation.classical.linear import F8, copies, float_copy, rows_part
from sizewright_server.estimation.classical.parts import (
    CODE,
    EXACT,
    SKLEARN,
    VALUES,
    Doubt,
    Steps,
    fit_of,
    part,
)
from sizewright_server.estimation.classical.registry import estimator
from sizewright_server.estimation.memory import ByteRange, Part

NEIGHBOURS = f"{SKLEARN}: neighbors/_base.py, _binary_tree.pxi.tp"
LIBSVM = "LIBSVM in scikit-learn: svm.cpp"
#: Beyond this many columns "auto" searches by brute force.
TREE_COLUMNS = 15
#: Fewer components than this are found by ARPACK (decomposition/_kernel_pca.py).
ARPACK_COMPONENTS = 10
#: Distances are computed in chunks of at most this (sklearn.set_config working_memory, 1 GiB).
WORKING_MEMORY_BYTES = 2**30


@estimator("scikit-learn", "KNeighborsClassifier", "KNeighborsRegressor", "NearestNeighbors")
@estimator("scikit-learn", "RadiusNeighborsClassifier", "RadiusNeighborsRegressor")
@estimator("scikit-learn", "KNeighborsTransformer", "RadiusNeighborsTransformer", "KernelDensity")
@estimator("scikit-learn", "LocalOutlierFactor")
def neighbours(job: FitJob) -> Steps:
    """The reference rows themselves, and the tree over them where one is built."""
    table = job.table
    near = job.count("n_neighbors", 20 if job.class_name == "LocalOutlierFactor" else 5)
    text = "n x neighbours x (distance + index), as chunks and stacked"
    # Each row finds itself too: the lists once more without it, and a mask.
    found = rows_part("neighbours", table, near * 49 + 32, text, NEIGHBOURS)
    model = _tree(job)
    fit = () if job.class_name != "LocalOutlierFactor" else (found,)
    asked = job.predict_rows or table.rows
    # A tree's results come in chunks and are stacked; brute force writes them once.
    each = 32 if model else 16
    numbers = f"{asked:,} x {near} x {each} B"
    predict = part("neighbours", asked * near * each, text, numbers, NEIGHBOURS)
    return fit_of(*fit, model=model, predict=(predict,))


@estimator("scikit-learn", "KNNImputer")
def neighbour_imputer(job: FitJob) -> Steps:
    """Distances of a chunk of incomplete rows to all rows, twice: as made, and masked."""
    table = job.table
    incomplete = 1 - (1 - table.missing_share) ** table.columns if table.missing_share else 1.0
    chunk = min(table.rows * incomplete, WORKING_MEMORY_BYTES / (F8 * max(table.rows, 1)))
    size = 2 * max(1, int(chunk)) * table.rows * F8
    numbers = f"2 x {int(chunk):,} x {table.rows:,} x 8 B"
    source = f"{SKLEARN}: impute/_knn.py, pairwise_distances_chunked"
    pairs = part("distances", size, "2 x chunk x n x 8 B, a chunk at most 1 GiB", numbers, source)
    kept = copies("fitted-rows", table, 1, "X, kept", source)
    made = copies("imputed", table, 1, "X, filled", source)
    return fit_of(model=(kept,), predict=(made, pairs))


def _tree(job: FitJob) -> tuple[Part, ...]:
    """A ball or k-d tree: X as float64, an index, and bounds of each node."""
    table = job.table
    kind = job.word("algorithm", "auto", ("auto", "ball_tree", "kd_tree", "brute"))
    if kind == "brute" or table.sparse or (kind == "auto" and table.columns > TREE_COLUMNS):
        return ()
    leaf = max(1, job.count("leaf_size", 30))
    levels = int(math.log2(max(1.0, (table.rows - 1) / leaf))) + 1
    nodes = 2**levels - 1
    each = 2 * table.columns * F8 + 24 if kind != "ball_tree" else table.columns * F8 + 24
    index = rows_part("tree-index", table, F8, "n x 8 B", NEIGHBOURS)
    bounds = part(
        "tree-nodes", nodes * each, "nodes x bounds", f"{nodes:,} x {each} B", NEIGHBOURS, EXACT
    )
    return (*float_copy(table, only="float64"), index, bounds)


@estimator("scikit-learn", "SVC", "SVR", "NuSVC", "NuSVR", "OneClassSVM")
def support_vectors(job: FitJob) -> Steps:
    """The kernel cache, up to its limit, of the rows the solver touched; X as float64."""
    table = job.table
    vectors = table.rows * constant("trees", "support_share").value
    size = vectors * (table.columns + max(table.classes - 1, 1)) * F8
    model = part(
        "support-vectors",
        size,
        "support vectors x (p + k - 1) x 8 B",
        f"{int(vectors):,} of {table.rows:,} rows",
        LIBSVM,
        VALUES,
    )
    nodes = rows_part("solver-arrays", table, 80, "nodes, gradient, bounds, status", LIBSVM)
    parts = (*float_copy(table, only="float64", c_order=True), nodes, _kernel_cache(job))
    return fit_of(*parts, model=(model,))


def _kernel_cache(job: FitJob) -> Part:
    """Rows of the kernel matrix in float32, at most `cache_size` MiB and at most n x n.

    Two rows are used in an iteration, so `max_iter` bounds it too. One-vs-one trains on two
    classes at a time.
    """
    table = job.table
    rows = float(table.rows)
    regression = job.class_name in ("SVR", "NuSVR")
    if table.classes > 2 and job.class_name in ("SVC", "NuSVC"):
        rows = 2 * rows / table.classes
    share = constant("trees", "kernel_rows_regression" if regression else "kernel_rows")
    if job.class_name == "OneClassSVM":
        # The first nu n rows start with a weight, and nu of all rows end with one.
        nu = min(1.0, job.number("nu", 0.5) or 0.5)
        share = replace(share, value=nu + (1 - nu) * nu, low=nu, high=1.0)
    limit = (job.number("cache_size", 200) or 0) * MIB
    iterations = job.number("max_iter", -1)
    touched = rows if iterations is None or iterations < 0 else min(rows, 2 * iterations)
    full = rows * touched * 4
    doubt = Doubt(0.97, 1.03, "high")
    if touched == rows:
        full *= share.value
        doubt = CODE if full < limit else Doubt(0.9, 1.02, "medium")
        if full < limit:
            doubt = Doubt(share.low / share.value, share.high / share.value, "low")
    numbers = f"min({limit / MIB:g} MiB, {int(rows):,} x {int(touched):,} x 4 B)"
    formula = "min(cache_size, rows touched x n x 4 B)"
    return part("kernel-cache", min(limit, full), formula, numbers, LIBSVM, doubt)


@estimator("scikit-learn", "MeanShift")
def mean_shift(job: FitJob) -> Steps:
    """The bandwidth's neighbours: three tenths of all rows for 500 rows at a time."""
    table = job.table
    near, batch = int(0.3 * table.rows), min(500, table.rows)
    size = batch * near * 48 if job.get("bandwidth") is None else 0
    numbers = f"{batch} x {near:,} x 48 B"
    source = f"{SKLEARN}: cluster/_mean_shift.py estimate_bandwidth"
    found = part("neighbours", size, "500 x 0.3 n x 48 B, as lists and stacked", numbers, source)
    each = rows_part("row-arrays", table, 16 * F8, "seeds, labels", source)
    return fit_of(*_tree(job), found, each)


@estimator("scikit-learn", "Birch")
def birch(job: FitJob) -> Steps:
    """Distances of every row to every subcluster; between a few and as many as rows."""
    table = job.table
    source = f"{SKLEARN}: cluster/_birch.py predict"
    most = min(WORKING_MEMORY_BYTES * 2, table.rows * table.rows * F8)
    size = ByteRange(0, most // 4, most)
    text = "n x subclusters x 8 B, whose number the threshold and the values decide"
    found = Part("distances", size, text, f"at most {most:,} B", source, "low")
    nodes = rows_part("tree", table, 2 * F8 * (table.columns + 4), "centroids and sums", source)
    return fit_of(*float_copy(table), nodes, found)


@estimator("scikit-learn", "DBSCAN", "HDBSCAN", "OPTICS")
def density_clusters(job: FitJob) -> Steps:
    """The neighbours of every row, as lists and again joined."""
    table = job.table
    tree = _tree(job)
    if job.class_name != "DBSCAN":
        arrays = rows_part("reachability", table, 12 * F8, "12 x n x 8 B", f"{SKLEARN}: cluster")
        return fit_of(*tree, arrays, model=())
    around = expected_neighbours(table, float(job.number("eps", 0.5) or 0))
    lists = part(
        "neighbour-lists",
        2 * table.rows * around * F8,
        "2 x n x neighbours within eps x 8 B",
        f"{table.rows:,} x {around:,.0f} expected of standardised columns",
        f"{SKLEARN}: cluster/_dbscan.py radius_neighbors",
        Doubt(0.05, 3.0, "low"),
    )
    each = rows_part("row-arrays", table, 16 * F8, "an array object a row, labels", NEIGHBOURS)
    return fit_of(*tree, lists, each)


def expected_neighbours(table: Table, eps: float) -> float:
    """Rows within `eps` of a row, itself included, if columns were independent and standardised.

    Half the squared distance of two such rows over 2 is chi-squared with p degrees of freedom, so
    the share is the regularised incomplete gamma function P(p/2, eps²/4).
    """
    share = _lower_gamma(table.columns / 2, eps * eps / 4)
    return min(float(table.rows), 1 + share * table.rows)


def _lower_gamma(shape: float, at: float) -> float:
    """P(shape, at) by its power series; 1 far to the right, where the series would be slow."""
    if at <= 0:
        return 0.0
    if at > shape + 10 * math.sqrt(shape) + 20:
        return 1.0
    term = total = 1 / shape
    step = shape
    while term > total * 1e-9:
        step += 1
        term *= at / step
        total += term
    return min(1.0, total * math.exp(shape * math.log(at) - at - math.lgamma(shape)))


@estimator("scikit-learn", "KernelRidge", "GaussianProcessRegressor", "GaussianProcessClassifier")
@estimator("scikit-learn", "SpectralClustering", "AffinityPropagation", "AgglomerativeClustering")
@estimator("scikit-learn", "KernelPCA", "MDS", "Isomap", "LocallyLinearEmbedding")
@estimator(
    "scikit-learn", "SpectralEmbedding", "LabelPropagation", "LabelSpreading", "ClassicalMDS"
)
def pairwise(job: FitJob) -> Steps:
    """Matrices of n x n float64: the kernel or distances, and what the method makes of them."""
    key = job.class_name
    wanted = job.get("n_components")
    if key == "KernelPCA" and isinstance(wanted, int) and wanted < ARPACK_COMPONENTS:
        key = "KernelPCA-arpack"
    count = constant("pairwise", key)
    side = job.table.rows * job.table.rows * F8
    size = count.size(side)
    numbers = f"{count.value:g} x {job.table.rows:,}² x 8 B"
    matrix = Part("pair-matrices", size, "matrices x n² x 8 B", numbers, count.source, "medium")
    return fit_of(*float_copy(job.table), matrix)


@estimator("scikit-learn", "TSNE")
def t_sne(job: FitJob) -> Steps:
    """Barnes-Hut: the neighbours' probabilities three times; `exact` has n x n matrices."""
    table = job.table
    if job.word("method", "barnes_hut", ("barnes_hut", "exact")) == "exact":
        size = 4 * table.rows * table.rows * F8
        exact = part("pair-matrices", size, "4 x n² x 8 B", f"{table.rows:,}²", SKLEARN)
        return fit_of(*float_copy(table), exact)
    around = 3 * (job.number("perplexity", 30) or 30) + 1
    text = "3 x n x (3 perplexity + 1) x 16 B"
    found = rows_part("affinities", table, 3 * around * 16, text, f"{SKLEARN}: manifold/_t_sne.py")
    return fit_of(*float_copy(table), found)
