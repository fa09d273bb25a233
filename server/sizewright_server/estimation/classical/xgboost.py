"""XGBoost on the CPU. Symbols: n rows, p columns, k outputs, z stored elements, b bins."""

from __future__ import annotations

import math
from dataclasses import replace

from sizewright_server.estimation.classical.batches import batch_part, batch_rows, is_streamed
from sizewright_server.estimation.classical.job import FitJob
from sizewright_server.estimation.classical.linear import outputs
from sizewright_server.estimation.classical.parts import CODE, EXACT, Doubt, Moment, Steps, part
from sizewright_server.estimation.classical.registry import estimator
from sizewright_server.estimation.memory import Part

SOURCE = "XGBoost 3: src/"
#: A stored element of a CSR page: column index and float value (include/xgboost/data.h Entry).
ENTRY_BYTES = 8
#: Sums of gradients and Hessians in double precision (include/xgboost/base.h GradientPairPrecise).
HISTOGRAM_ENTRY_BYTES = 16
#: A sketch entry: two ranks, a weight, a value as float (src/common/quantile.h WQSummary::Entry).
SKETCH_ENTRY_BYTES = 16
#: Buffers a column's sketch has filled: the queue's two halves and the merged levels.
SKETCH_BUFFERS = 3
#: Sketch error is one over this many times the bins (src/common/quantile.h kFactor).
SKETCH_FACTOR = 8
#: Node histograms kept at most (tree/hist/param.h CpuDefaultNodes).
CACHED_NODES = 2**16
#: Nodes and statistics of a regression tree (include/xgboost/tree_model.h), with vector growth.
TREE_NODE_BYTES = 64

API = {
    "XGBClassifier": "wrapper",
    "XGBRegressor": "wrapper",
    "XGBRanker": "wrapper",
    "XGBRFClassifier": "wrapper",
    "XGBRFRegressor": "wrapper",
    "QuantileDMatrix": "quantile",
    "ExtMemQuantileDMatrix": "external",
    "DMatrix": "dmatrix",
}


@estimator("xgboost", *API)
def boosted(job: FitJob) -> Steps:
    """The matrix as `DMatrix` or as bins, then gradients, positions and histograms.

    The wrapper takes a QuantileDMatrix for `hist`, which is the default, and a DMatrix else.
    """
    method = job.word("tree_method", "auto", ("auto", "hist", "approx", "exact"))
    binned = method in ("auto", "hist")
    api = API[job.class_name]
    quantile = api == "quantile" or (api == "wrapper" and binned)
    rows = _rows(job)
    model = (_trees(job),)
    if api == "external":
        return _external(job)
    if quantile:
        bins = (*_bins(job), _row_pointers(job))
        made = () if is_streamed(job) else bins
        return Steps(
            (
                # The iterator runs twice: bins are made when the sketches are gone.
                Moment("fit-quantiles", (_labels(job), *made, *_sketching(job))),
                Moment(
                    "fit-boosting", (_labels(job), *bins, _left(job), rows, histograms(job), *model)
                ),
            ),
            (*model, _labels(job), *bins),
        )
    stored = (_labels(job), *_stored(job))
    sketched: tuple[Moment, ...] = ()
    left: tuple[Part, ...] = ()
    if method != "exact" and job.get("booster", "gbtree") != "gblinear":
        sketched = (Moment("fit-quantiles", (*stored, _sketch(job))),)
        left = (_left(job),)
    if method == "exact":
        grown: tuple[Part, ...] = (_columns(job),)
    elif method == "approx":
        grown = (*_bins(job), _row_pointers(job), _columns(job), histograms(job))
    else:
        grown = (*_bins(job), _row_pointers(job), histograms(job))
    return Steps(
        (
            Moment("fit-matrix", stored),
            *sketched,
            Moment("fit-boosting", (*stored, *left, rows, *grown, *model)),
        ),
        (*model, *stored),
    )


def _external(job: FitJob) -> Steps:
    """Bins stay in a cache on disk; pages of them come and go while trees grow.

    Measured at 400,000 x 100, 1,500,000 x 50 and 300,000 x 300 (measure/host, `source: external`):
    sketches decide the peak, and pages are within the doubt of the rest.
    """
    size = batch_rows(job) * job.table.columns
    numbers = f"{size:,} B a page"
    source = (
        f"{SOURCE}data/extmem_quantile_dmatrix.cc: pages are fetched ahead, from the page cache"
    )
    pages = part(
        "bin-pages", 2 * size, "2 x batch rows x p", numbers, source, Doubt(0.0, 3.0, "low")
    )
    kept = (_labels(job), pages)
    grown = (*kept, _left(job), _rows(job), histograms(job), _trees(job))
    steps = (Moment("fit-quantiles", (*kept, *_sketching(job))), Moment("fit-boosting", grown))
    return Steps(steps, (_trees(job), *kept))


def _sketching(job: FitJob) -> tuple[Part, ...]:
    """The sketches; of a stream those of a batch too, and the batch.

    A batch's sketches are merged into those of all rows (src/data/quantile_dmatrix.cc): 439 to 468,
    360 to 415 and 765 MiB were measured where this makes 410 to 465, 365 to 475 and 762.
    """
    one = _sketch(job)
    if not is_streamed(job):
        return (one,)
    merged = replace(one, name="sketches-of-a-batch")
    return (one, merged, batch_part(job))


def _stored(job: FitJob) -> tuple[Part, ...]:
    """The CSR page of a DMatrix; missing values are not stored."""
    table = job.table
    kept = int(table.stored_elements * (1 - table.missing_share))
    size = kept * ENTRY_BYTES + table.rows * 8
    numbers = f"{kept:,} x {ENTRY_BYTES} B + {table.rows:,} x 8 B"
    text = "non-missing x (index 4 + value 4) + n x 8"
    return (part("dmatrix", size, text, numbers, f"{SOURCE}data/simple_dmatrix.cc", EXACT),)


def _labels(job: FitJob) -> Part:
    size = job.table.rows * 4
    return part("labels", size, "n x 4 B", f"{job.table.rows:,}", f"{SOURCE}data/data.cc", EXACT)


def _bins(job: FitJob) -> tuple[Part, ...]:
    """Bin numbers by row, and again by column for partitioning.

    Dense tables number bins within a column: 1, 2 or 4 B by `max_bin`. Sparse ones number them
    over all columns, and the column copy adds the row of each.
    """
    table, bins = job.table, job.count("max_bin", 256)
    kept = int(table.stored_elements * (1 - table.missing_share))
    dense = not table.sparse and table.missing_share == 0
    per_column = 1 if bins <= 256 else 2 if bins <= 65_536 else 4
    by_row = per_column if dense else 4
    by_column = per_column if dense or not table.sparse else per_column + 8
    columns = table.elements if not table.sparse else kept
    return (
        part(
            "bins-by-row",
            kept * by_row,
            "elements x bytes of a bin",
            f"{kept:,} x {by_row} B",
            f"{SOURCE}data/gradient_index.cc",
            EXACT,
        ),
        part(
            "bins-by-column",
            columns * by_column,
            "elements x bytes of a bin, and a row where sparse",
            f"{columns:,} x {by_column} B",
            f"{SOURCE}common/column_matrix.cc",
        ),
    )


def _row_pointers(job: FitJob) -> Part:
    size = job.table.rows * 8
    return part("row-pointers", size, "n x 8 B", f"{job.table.rows:,}", SOURCE, EXACT)


def _columns(job: FitJob) -> Part:
    """`exact` walks sorted columns, `approx` sketches them: every entry once more."""
    size = job.table.stored_elements * ENTRY_BYTES
    numbers = f"{job.table.stored_elements:,} x {ENTRY_BYTES} B"
    return part("sorted-columns", size, "elements x 8 B", numbers, f"{SOURCE}data/sparse_page")


def _sketch(job: FitJob) -> Part:
    """Quantile sketches of all columns while a QuantileDMatrix is made.

    A sketch of n values with error 1/(8 b) has log2(n/(8 b)) + 1 levels of as many entries.
    """
    table = job.table
    inverse = SKETCH_FACTOR * job.count("max_bin", 256)
    levels = max(1, math.ceil(math.log2(max(2.0, table.rows / inverse))) + 1)
    # A column's sketch holds no more than its stored values.
    stored = table.rows * (table.density if table.sparse else 1) * (1 - table.missing_share)
    entries = min(levels * inverse, max(int(stored), 1))
    size = table.columns * entries * SKETCH_ENTRY_BYTES * SKETCH_BUFFERS
    numbers = f"{SKETCH_BUFFERS} x {table.columns:,} x {entries:,} x {SKETCH_ENTRY_BYTES} B"
    text = "buffers x p x levels x 8 b x 16 B"
    return part("quantile-sketches", size, text, numbers, f"{SOURCE}common/quantile.h")


def _left(job: FitJob) -> Part:
    """Freed sketches: blocks below glibc's mmap threshold stay with the process.

    With fixed thresholds they go back: 593 to 571, and 1,243 to 1,034 MiB at the peak, measured.
    """
    size = (0.0 if job.returns_freed else 0.7) * _sketch(job).size.best_bytes
    text = "0.7 x sketches: freed, and kept by the heap"
    source = "glibc malloc's dynamic mmap threshold; 200 of 295 MiB resident after a fit"
    doubt = Doubt(0.0, 1.4, "medium")
    return part("left-of-sketches", size, text, f"{size:,.0f} B", source, doubt)


def _rows(job: FitJob) -> Part:
    """Gradient pairs 8 and predictions 8 an output; row positions 8, and 8 while they split."""
    width = outputs(job.table)
    size = job.table.rows * (16 * width + 16)
    text = "n x (k x (gradients 8 + predictions 8) + positions 16)"
    numbers = f"{job.table.rows:,} x {16 * width + 16} B"
    return part("row-arrays", size, text, numbers, f"{SOURCE}gbm/gbtree.cc, common/row_set.h")


def _leaves(job: FitJob) -> int:
    """Most leaves of a tree: by depth (6 unless told), by `max_leaves`, and by rows."""
    depth = job.count("max_depth", 6)
    most = job.count("max_leaves", 0)
    bounds = [max(2, job.table.rows)]
    if depth:
        bounds.append(2 ** min(depth, 60))
    if most:
        bounds.append(most)
    return min(bounds)


def histograms(job: FitJob) -> Part:
    """Every node that splits has its histogram until the tree is done, and threads their own."""
    table, bins = job.table, job.count("max_bin", 256)
    splitting = min(_leaves(job) - 1, CACHED_NODES)
    widest = max(1, _leaves(job) // 4)
    threads = max(1, min(job.threads, 64) - 1) * min(widest, 8)
    each = table.columns * bins * HISTOGRAM_ENTRY_BYTES
    nodes = splitting + threads
    numbers = f"{nodes:,} x {table.columns:,} x {bins:,} x {HISTOGRAM_ENTRY_BYTES} B"
    source = f"{SOURCE}tree/hist/hist_cache.h, common/hist_util.h"
    # Rare values split off few rows, so trees on sparse columns stay below their depth.
    doubt = Doubt(0.3, 1.4, "medium") if table.sparse else CODE
    size = nodes * each * (0.7 if table.sparse else 1)
    return part("histograms", size, "nodes x p x bins x 16 B", numbers, source, doubt)


def _trees(job: FitJob) -> Part:
    rounds = job.rounds if job.rounds is not None else job.count("n_estimators", 100)
    trees = rounds * outputs(job.table)
    nodes = trees * (2 * _leaves(job) - 1)
    numbers = f"{trees:,} trees, at most {nodes:,} nodes x {TREE_NODE_BYTES} B"
    return part("trees", nodes * TREE_NODE_BYTES, "T x k x (2 L - 1)", numbers, f"{SOURCE}tree")
