"""Trees and forests of scikit-learn. Symbols: n rows, p columns, k classes, T trees."""

from __future__ import annotations

import math

from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.job import FitJob, Table
from sizewright_server.estimation.classical.linear import F8, copies, outputs, rows_part
from sizewright_server.estimation.classical.parts import (
    CODE,
    EXACT,
    SKLEARN,
    Doubt,
    Moment,
    Steps,
    fit_of,
    part,
)
from sizewright_server.estimation.classical.registry import estimator
from sizewright_server.estimation.memory import Part

#: A node of `tree/_tree.pxd`: two children, feature, threshold, impurity, counts, flag, padded.
NODE_BYTES = 64
#: joblib maps arrays of more than this to a file that the workers share (Parallel, max_nbytes).
MAPPED_FROM_BYTES = 10**6
#: Share of distinct rows in a bootstrap sample as large as the table: 1 - 1/e.
BOOTSTRAP_SHARE = 1 - math.exp(-1)
SOURCE = f"{SKLEARN}: tree/_tree.pyx, _splitter.pyx; ensemble/_forest.py"


def float32_copy(table: Table) -> tuple[Part, ...]:
    """Trees take float32 and nothing else."""
    if table.dtype == "float32":
        return ()
    size = table.matrix_bytes(4)
    numbers = f"{table.rows:,} x {table.columns:,} x 4 B"
    return (part("float32-features", size, "X as float32", numbers, SOURCE, EXACT),)


def leaf_count(job: FitJob, seen_rows: float, classes: int) -> tuple[int, Doubt]:
    """Leaves of one tree and the doubt of that: bounded by depth, leaf size and the rows it sees.

    A fully grown regression tree has a leaf for each distinct row. A classifier's leaves are pure:
    there are about as many as label changes that no split explains, which is the labels' impurity
    1 - 1/k times a share that depends on the noise (`data/trees.json`).
    """
    share = constant("trees", "unexplained_impurity")
    full, doubt = seen_rows, Doubt(0.85, 1.05, "medium")
    if classes:
        full = seen_rows * (1 - 1 / max(classes, 2)) * share.value
        doubt = Doubt(share.low / share.value, share.high / share.value, "low")
    smallest = job.number("min_samples_leaf", 1) or 1
    if smallest < 1:
        smallest = max(1.0, smallest * seen_rows)
    if smallest > 1:
        # A split leaves between one and two times the smallest leaf on each side.
        full = min(full, seen_rows / (1.5 * smallest))
    bounds = [full]
    depth = job.number("max_depth")
    if depth is not None and depth < 60:
        bounds.append(constant("trees", "filled_depth").value * 2.0**depth)
    most = job.number("max_leaf_nodes")
    if most is not None:
        bounds.append(float(most))
    return max(1, int(min(bounds))), doubt


def trees_part(job: FitJob, trees: int, leaves: tuple[int, Doubt], classes: int) -> Part:
    """All nodes of all trees: 2 L - 1 a tree, each with a value per class."""
    count, doubt = leaves
    nodes = trees * (2 * count - 1)
    each = NODE_BYTES + F8 * max(classes, 1)
    numbers = f"{trees:,} x (2 x {count:,} - 1) x {each} B"
    formula = "T x (2 L - 1) x (64 B node + 8 B x k)"
    return part("trees", nodes * each, formula, numbers, SOURCE, doubt)


def _growing(leaves: int, classes: int) -> Part:
    """The growing tree's arrays double; the last doubling and the trimmed copy live together."""
    capacity = 2 ** math.ceil(math.log2(max(2 * leaves, 2)))
    each = NODE_BYTES + F8 * max(classes, 1)
    text = "node capacity doubles, then is trimmed"
    return part("growing-tree", capacity * each * 0.5, text, f"{capacity:,} x {each} B / 2", SOURCE)


def _tree_work(table: Table, *, bootstrap: bool) -> Part:
    """Per running tree: sample order 8, column buffer 4, weights 8, target 8; bootstrap 36 more.

    A bootstrap draws indices 8, sorts or counts them 8 + 8, and makes weights 8 and a mask 4.
    """
    each = 28 + (36 if bootstrap else 0)
    return rows_part("running-tree", table, each, "order, column, weights, bootstrap", SOURCE)


@estimator("scikit-learn", "DecisionTreeClassifier", "DecisionTreeRegressor")
@estimator("scikit-learn", "ExtraTreeClassifier", "ExtraTreeRegressor")
def decision_tree(job: FitJob) -> Steps:
    """One tree on all rows."""
    classes = _classes(job)
    leaves = leaf_count(job, job.table.rows, classes)
    growing = _growing(leaves[0], classes)
    model = (trees_part(job, 1, leaves, classes),)
    work = _tree_work(job.table, bootstrap=False)
    return fit_of(*float32_copy(job.table), work, growing, model=model)


@estimator("scikit-learn", "RandomForestClassifier", "RandomForestRegressor")
@estimator("scikit-learn", "ExtraTreesClassifier", "ExtraTreesRegressor")
def forest(job: FitJob) -> Steps:
    """Threads share X; each running tree has its bootstrap and its buffers; the trees stay."""
    table, classes = job.table, _classes(job)
    extra = job.class_name.startswith("Extra")
    bootstrap = bool(job.get("bootstrap", not extra))
    trees, running = (
        job.count("n_estimators", 100),
        min(job.workers(), job.count("n_estimators", 100)),
    )
    seen = table.rows * BOOTSTRAP_SHARE if bootstrap else float(table.rows)
    largest = job.number("max_samples")
    if largest is not None and bootstrap:
        drawn = largest * table.rows if largest <= 1 else largest
        seen = table.rows * (1 - math.exp(-drawn / max(table.rows, 1)))
    leaves = leaf_count(job, seen, classes)
    if extra and classes:
        # Random thresholds split what one best threshold would have separated.
        wider = constant("trees", "random_split_leaves").value
        leaves = (max(1, min(int(leaves[0] * wider), int(seen))), leaves[1])
    model = (trees_part(job, trees, leaves, classes),)
    work = _tree_work(table, bootstrap=bootstrap)
    busy = part(
        "running-trees",
        running * work.size.best_bytes,
        "jobs x rows x bytes of a running tree",
        f"{running} x {work.numbers}",
        SOURCE,
    )
    encoded = rows_part("targets", table, 3 * F8, "encoded labels, as float64, weights", SOURCE)
    arenas = constant("process", "thread_pool").part("thread-pool", "joblib's threads, arenas")
    parts = (*float32_copy(table), encoded, busy, _growing(leaves[0], classes), arenas)
    predicted = rows_part(
        "votes", table, (running + 1) * F8 * max(classes, 1), "(jobs + 1) x n x k x 8 B", SOURCE
    )
    return fit_of(*parts, model=model, predict=(*float32_copy(table), predicted))


@estimator("scikit-learn", "GradientBoostingClassifier", "GradientBoostingRegressor")
def gradient_boosting(job: FitJob) -> Steps:
    """Exact trees on residuals: one tree a round and class, of depth 3 unless told."""
    table, width = job.table, outputs(job.table) if _classes(job) else 1
    depth = FitJob(job.library, job.class_name, table, {"max_depth": 3, **job.parameters})
    leaves = leaf_count(depth, table.rows, 0)
    trees = job.count("n_estimators", 100) * width
    arrays = rows_part(
        "boosting-arrays",
        table,
        F8 * (4 * width + 3),
        "raw predictions, gradients, one-hot labels, temporaries: n x (4 k + 3) x 8 B",
        f"{SKLEARN}: ensemble/_gb.py",
    )
    model = (trees_part(job, trees, leaves, 0),)
    work = _tree_work(table, bootstrap=False)
    moments = [Moment("fit", (*float32_copy(table), arrays, work, *model))]
    if job.get("n_iter_no_change") is not None:
        text = "training and validation rows"
        split = copies("validation-split", table, 1, text, "train_test_split copies rows")
        moments = [Moment("fit", (*moments[0].parts, split))]
    predicted = rows_part("raw-predictions", table, F8 * width, "n x k x 8 B", SOURCE)
    return Steps(tuple(moments), model, (*float32_copy(table), predicted))


@estimator("scikit-learn", "AdaBoostClassifier", "AdaBoostRegressor")
def ada_boost(job: FitJob) -> Steps:
    """Stumps (or shallow trees) one after the other, and weights."""
    trees = job.count("n_estimators", 50)
    model = (trees_part(job, trees, (2, CODE), _classes(job)),)
    arrays = rows_part("weights", job.table, 6 * F8, "weights, predictions: 6 x n x 8 B", SOURCE)
    work = _tree_work(job.table, bootstrap=False)
    return fit_of(*float32_copy(job.table), arrays, work, model=model)


@estimator("scikit-learn", "BaggingClassifier", "BaggingRegressor")
def bagging(job: FitJob) -> Steps:
    """Trees on bootstrap weights, each converting X by itself."""
    classes = _classes(job)
    leaves = leaf_count(job, job.table.rows * BOOTSTRAP_SHARE, classes)
    model = (trees_part(job, job.count("n_estimators", 10), leaves, classes),)
    running = job.workers()
    copied = [
        part(
            each.name,
            running * each.size.best_bytes,
            f"jobs x {each.formula}",
            each.numbers,
            SOURCE,
        )
        for each in (*float32_copy(job.table), _tree_work(job.table, bootstrap=True))
    ]
    return fit_of(*copied, *loky_parts(job), _growing(leaves[0], classes), model=model)


def loky_parts(job: FitJob) -> tuple[Part, ...]:
    """joblib's worker processes, where there are several, and the table as a file they map."""
    workers = job.workers()
    if workers <= 1:
        return ()
    made = [
        constant("process", "loky_worker").part("workers", "workers x own pages", workers),
        constant("process", "loky_manager").part("worker-manager", "resource tracker"),
    ]
    shared = job.table.matrix_bytes()
    if shared > MAPPED_FROM_BYTES:
        text = "the table as a file all workers map"
        source = "joblib: Parallel(max_nbytes), a file in /dev/shm"
        made.append(part("shared-table", shared, text, f"{shared:,} B", source))
    return tuple(made)


@estimator("scikit-learn", "RandomTreesEmbedding")
def trees_embedding(job: FitJob) -> Steps:
    """Random trees of depth 5, and a one for the leaf of each row in each tree."""
    table, trees = job.table, job.count("n_estimators", 100)
    leaves = min(2 ** min(job.count("max_depth", 5), 30), table.rows)
    model = (trees_part(job, trees, (max(1, leaves), CODE), 0),)
    applied = rows_part("leaves", table, 2 * F8 * trees, "leaf numbers, as codes: 2 n T", SOURCE)
    ones = rows_part("output-leaves", table, trees * 12, "n x T x (value 8 + index 4)", SOURCE)
    work = _tree_work(table, bootstrap=False)
    grown = Moment("fit", (*float32_copy(table), work, *model))
    coded = Moment("fit-transform", (*float32_copy(table), applied, ones, *model))
    return Steps((grown, coded), model, (applied, ones))


@estimator("scikit-learn", "IsolationForest")
def isolation_forest(job: FitJob) -> Steps:
    """Small trees on 256 rows each; X as float32 is what counts."""
    table = job.table
    drawn = job.number("max_samples")
    rows = min(256, table.rows) if not drawn else drawn if drawn > 1 else drawn * table.rows
    trees = job.count("n_estimators", 100)
    model = (trees_part(job, trees, (max(1, int(rows) // 2), CODE), 0),)
    scores = rows_part("scores", table, 4 * F8, "depths and scores: 4 x n x 8 B", SOURCE)
    return fit_of(*float32_copy(table), model=model, predict=(*float32_copy(table), scores))


def _classes(job: FitJob) -> int:
    """Labels of a classifier; 0 for a regressor whatever the table says."""
    return 0 if job.class_name.endswith("Regressor") else max(job.table.classes, 2)
