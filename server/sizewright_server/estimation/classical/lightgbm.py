"""LightGBM on the CPU. Symbols: n rows, p columns, k outputs, z stored elements, b bins."""

from __future__ import annotations

from sizewright_server.estimation.classical.batches import batch_part, is_streamed
from sizewright_server.estimation.classical.job import FitJob
from sizewright_server.estimation.classical.linear import outputs
from sizewright_server.estimation.classical.parts import (
    CODE,
    EXACT,
    Doubt,
    Moment,
    Steps,
    part,
)
from sizewright_server.estimation.classical.registry import estimator
from sizewright_server.estimation.memory import ByteRange, Part

SOURCE = "LightGBM 4: src/"
#: Rows sampled for bin edges (config.h bin_construct_sample_cnt).
SAMPLE_ROWS = 200_000
#: A sampled value as double and its row as int (dataset_loader.cpp, sample_values and indices),
#: and what the growing vectors left behind: they double, so 2 B of 12 at 200,000 rows.
SAMPLED_BYTES = 14
#: Bytes a drawn element takes beside the sample, while both are there.
DRAWN_BYTES = 5.5
#: Sums of gradients and Hessians as doubles (bin.h, kHistEntrySize).
HISTOGRAM_ENTRY_BYTES = 16
TREE_NODE_BYTES = 100
#: Small freed blocks stay with the process: the sample is only partly used again.
LEFT_BEHIND = Doubt(0.0, 1.6, "medium")


@estimator("lightgbm", "LGBMClassifier", "LGBMRegressor", "LGBMRanker", "Dataset")
def boosted(job: FitJob) -> Steps:
    """Sampling and binning; then gradients, scores and a pool of histograms."""
    bins, labels = _bins(job), _labels(job)
    sample = _sample(job)
    left = part(
        "left-of-the-sample",
        (0.0 if job.returns_freed else 0.6) * sample.size.best_bytes,
        "freed sample vectors, partly used again",
        f"0.6 x {sample.size.best_bytes:,} B",
        "glibc keeps freed blocks below its mmap threshold",
        LEFT_BEHIND,
    )
    copied = _pandas_copy(job)
    model = (_trees(job),)
    rows = _rows(job)
    return Steps(
        (
            Moment("fit-binning", (*copied, labels, bins, sample, *_drawn(job))),
            Moment("fit-boosting", (*copied, labels, bins, left, rows, histograms(job), *model)),
        ),
        (*model, labels, bins),
    )


def _drawn(job: FitJob) -> tuple[Part, ...]:
    """Rows that a Sequence hands out one by one while they are sampled, as lists and an array.

    Measured over the same table in memory: 223, 265 and 597 MiB more at 400,000 x 100,
    1,500,000 x 50 and 300,000 x 300, mapped pages of the files (0.7 of them) taken off.
    """
    if not is_streamed(job):
        return ()
    rows = min(job.table.rows, job.count("bin_construct_sample_cnt", SAMPLE_ROWS))
    size = rows * job.table.columns * DRAWN_BYTES
    numbers = f"{rows:,} x {job.table.columns:,} x {DRAWN_BYTES} B"
    text = "sampled rows x p x bytes"
    source = "lightgbm/basic.py: _yield_row_from_seqlist, __sample"
    doubt = Doubt(0.5, 2.0, "medium")
    return (part("drawn-rows", size, text, numbers, source, doubt), batch_part(job))


def _pandas_copy(job: FitJob) -> tuple[Part, ...]:
    """A frame becomes one array, float32 where every column is, else float64."""
    if job.table.container not in ("pandas", "arrow"):
        return ()
    item = 4 if job.table.dtype == "float32" else 8
    size = job.table.elements * item
    numbers = f"{job.table.rows:,} x {job.table.columns:,} x {item} B"
    source = "lightgbm/basic.py _data_from_pandas"
    text = "n x p x bytes; nothing where the frame is one block of one float type"
    return (Part("frame-as-array", ByteRange(0, 0, size), text, numbers, source, "low"),)


def _bins(job: FitJob) -> Part:
    """Dense columns take a byte a row, two above 256 bins, half up to 16; sparse ones z entries."""
    table, most = job.table, job.count("max_bin", 255)
    each = 0.5 if most <= 15 else 1 if most <= 256 else 2 if most <= 65_536 else 4
    if table.sparse:
        # Sparse bins hold a delta and a value; exclusive columns are bundled and take less.
        size = min(table.stored_elements * (each + 1) * 4, table.elements * each)
        doubt = Doubt(0.3, 1.6, "low")
        numbers = f"{table.stored_elements:,} stored"
        return part("bins", size, "sparse bins and bundles", numbers, f"{SOURCE}io", doubt)
    size = table.elements * each
    numbers = f"{table.rows:,} x {table.columns:,} x {each:g} B"
    return part("bins", size, "n x p x bytes of a bin", numbers, f"{SOURCE}io/dense_bin.hpp", EXACT)


def _sample(job: FitJob) -> Part:
    """Non-zero values of the sampled rows, by column."""
    table = job.table
    rows = min(table.rows, job.count("bin_construct_sample_cnt", SAMPLE_ROWS))
    values = int(rows * table.columns * (table.density if table.sparse else 1))
    text = "sampled rows x p x (value 8 + row 4 + outgrown buffers 2)"
    numbers = f"{values:,} x {SAMPLED_BYTES} B"
    source = f"{SOURCE}c_api.cpp, io/dataset_loader.cpp"
    return part("binning-sample", values * SAMPLED_BYTES, text, numbers, source, CODE)


def _labels(job: FitJob) -> Part:
    size = job.table.rows * 4
    return part("labels", size, "n x 4 B", f"{job.table.rows:,}", f"{SOURCE}io/metadata.cpp", EXACT)


def _rows(job: FitJob) -> Part:
    """Gradients and Hessians 8 and a score 8 an output; row indices twice 4."""
    width = outputs(job.table)
    size = job.table.rows * (16 * width + 8)
    text = "n x (k x (gradients 8 + score 8) + indices 8)"
    numbers = f"{job.table.rows:,} x {16 * width + 8} B"
    return part("row-arrays", size, text, numbers, f"{SOURCE}boosting/gbdt.cpp")


def _leaves(job: FitJob) -> int:
    leaves = job.count("num_leaves", 31)
    depth = job.number("max_depth", -1)
    if depth is not None and 0 < depth < 60:
        leaves = min(leaves, 2 ** int(depth))
    smallest = max(1, job.count("min_child_samples", 20))
    return max(2, min(leaves, max(2, job.table.rows // smallest)))


def histograms(job: FitJob) -> Part:
    """One histogram a leaf, unless `histogram_pool_size` bounds them."""
    table, leaves = job.table, _leaves(job)
    each = (
        table.columns * min(job.count("max_bin", 255), max(table.rows, 2)) * HISTOGRAM_ENTRY_BYTES
    )
    numbers = f"{leaves:,} x {table.columns:,} x bins x {HISTOGRAM_ENTRY_BYTES} B"
    source = f"{SOURCE}treelearner/feature_histogram.hpp HistogramPool"
    return part("histograms", leaves * each, "leaves x p x bins x 16 B", numbers, source)


def _trees(job: FitJob) -> Part:
    rounds = job.rounds if job.rounds is not None else job.count("n_estimators", 100)
    nodes = rounds * outputs(job.table) * (2 * _leaves(job) - 1)
    numbers = f"{nodes:,} x {TREE_NODE_BYTES} B"
    return part(
        "trees", nodes * TREE_NODE_BYTES, "T x k x (2 L - 1)", numbers, f"{SOURCE}io/tree.cpp"
    )
