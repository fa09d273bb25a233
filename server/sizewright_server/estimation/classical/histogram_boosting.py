"""HistGradientBoosting of scikit-learn: binning, then boosting on bins."""

from __future__ import annotations

from sizewright_server.estimation.classical.job import FitJob
from sizewright_server.estimation.classical.linear import F8, outputs, rows_part
from sizewright_server.estimation.classical.parts import EXACT, SKLEARN, Moment, Steps, part
from sizewright_server.estimation.classical.registry import estimator
from sizewright_server.estimation.memory import Part

SOURCE = f"{SKLEARN}: ensemble/_hist_gradient_boosting"
#: Rows from which bin edges are found (binning.py, `subsample`).
BINNING_ROWS = 200_000
#: An entry of a histogram: sum of gradients 8, of Hessians 8, count 4 (common.pxd, packed).
HISTOGRAM_ENTRY_BYTES = 20
#: Early stopping is on by default above this many rows.
EARLY_STOPPING_ROWS = 10_000
#: A predictor's node (common.pxd PREDICTOR_RECORD_DTYPE).
PREDICTOR_NODE_BYTES = 61


@estimator("scikit-learn", "HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
def histogram_boosting(job: FitJob) -> Steps:
    """Two peaks: the subsample in which edges are found, and bins with the boosting arrays."""
    table = job.table
    width = 1 if job.class_name.endswith("Regressor") else outputs(table)
    held = _matrix_copies(job)
    sampled = min(table.rows, BINNING_ROWS) * table.columns * F8
    sample = part(
        "binning-sample",
        sampled if table.rows > BINNING_ROWS else 0,
        "min(n, 200,000) x p x 8 B, taken when n is larger",
        f"{sampled:,} B",
        f"{SOURCE}/binning.py",
        EXACT,
    )
    targets = rows_part("targets", table, 3 * F8, "labels, encoded, as float64", SOURCE)
    bins = part(
        "binned-features",
        table.elements,
        "n x p x 1 B",
        f"{table.rows:,} x {table.columns:,}",
        f"{SOURCE}/binning.py: uint8, column order",
        EXACT,
    )
    boosting = rows_part(
        "boosting-arrays",
        table,
        28 * width + 12,
        "raw prediction 8, gradient and Hessian 8, temporaries 12 a class; row partition 12",
        f"{SOURCE}/gradient_boosting.py, splitting.pyx",
    )
    model = (_predictors(job, width),)
    return Steps(
        (
            Moment("fit-binning", (*held, targets, sample)),
            Moment("fit-boosting", (*held, targets, bins, boosting, _histograms(job), *model)),
        ),
        model,
        (rows_part("raw-predictions", table, 2 * F8 * width, "2 x n x k x 8 B", SOURCE),),
    )


def _matrix_copies(job: FitJob) -> tuple[Part, ...]:
    """X as float64, and again split into training and validation rows for early stopping."""
    table = job.table
    size = table.elements * F8
    made = []
    if table.dtype != "float64" or table.fortran_order:
        text = f"{table.rows:,} x {table.columns:,} x 8 B"
        made.append(part("float64-features", size, "X as float64", text, SOURCE, EXACT))
    stopping = job.get("early_stopping", "auto")
    on = table.rows > EARLY_STOPPING_ROWS if stopping == "auto" else bool(stopping)
    if on and job.number("validation_fraction", 0.1):
        text = "training and validation rows, float64"
        made.append(part("validation-split", size, text, f"{size:,} B", SOURCE, EXACT))
    return tuple(made)


def _leaves(job: FitJob) -> int:
    most = job.number("max_leaf_nodes", 31)
    depth = job.number("max_depth")
    bound = job.table.rows / max(1, job.count("min_samples_leaf", 20))
    for limit in (most, 2.0**depth if depth is not None and depth < 60 else None):
        if limit is not None:
            bound = min(bound, limit)
    return max(2, int(bound))


def _histograms(job: FitJob) -> Part:
    """A node keeps its histograms until its children have theirs; freed ones are reused."""
    leaves, bins = _leaves(job), job.count("max_bins", 255) + 1
    each = job.table.columns * bins * HISTOGRAM_ENTRY_BYTES
    numbers = f"{leaves} x {job.table.columns:,} x {bins} x {HISTOGRAM_ENTRY_BYTES} B"
    source = f"{SOURCE}/grower.py, histogram.pyx"
    return part("histograms", leaves * each, "leaves x p x bins x 20 B", numbers, source)


def _predictors(job: FitJob, width: int) -> Part:
    trees = job.count("max_iter", 100) * width
    nodes = trees * (2 * _leaves(job) - 1)
    numbers = f"{trees:,} trees, {nodes:,} x {PREDICTOR_NODE_BYTES} B"
    formula = "T x k x (2 L - 1) nodes"
    return part("trees", nodes * PREDICTOR_NODE_BYTES, formula, numbers, SOURCE)
