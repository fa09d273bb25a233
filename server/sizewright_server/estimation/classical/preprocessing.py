"""Transformers of scikit-learn: what a fit and a transform hold, and the table that comes out."""

from __future__ import annotations

from sizewright_server.estimation.classical.constants import constant, keys
from sizewright_server.estimation.classical.dataset import string_bytes
from sizewright_server.estimation.classical.job import FitJob
from sizewright_server.estimation.classical.linear import (
    F8,
    copies,
    float_copy,
    rows_part,
)
from sizewright_server.estimation.classical.outputs import output_of
from sizewright_server.estimation.classical.parts import (
    CODE,
    EXACT,
    SKLEARN,
    VALUES,
    Moment,
    Steps,
    part,
)
from sizewright_server.estimation.classical.registry import estimator
from sizewright_server.estimation.memory import Part

SCALE = f"{SKLEARN}: preprocessing/_data.py"


def output_part(job: FitJob, name: str = "transformed") -> Part:
    """The transformed table, which is alive when the transformer returns."""
    made = output_of(job)
    size = made.matrix_bytes()
    numbers = f"{made.rows:,} x {made.columns:,}, {made.stored_elements:,} stored"
    doubt = VALUES if made.sparse and job.class_name != "OneHotEncoder" else EXACT
    source = f"{SKLEARN}: {job.class_name}"
    if job.class_name in keys("output_copies"):
        entry = constant("output_copies", job.class_name)
        return entry.part(name, "copies x the output while it is made", size)
    return part(name, size, "the output", numbers, source, doubt)


@estimator("scikit-learn", "StandardScaler")
def standard_scaler(job: FitJob) -> Steps:
    """The variance is taken in float64: the difference to the mean, and a mask of NaNs."""
    table = job.table
    if table.sparse:
        return _transformer(job)
    size = table.elements * (F8 + 1)
    numbers = f"{table.rows:,} x {table.columns:,} x 9 B"
    source = f"{SKLEARN}: utils/extmath.py _incremental_mean_and_var"
    fit = part("variance", size, "X - mean as float64, NaN mask", numbers, source, EXACT)
    return _transformer(job, *float_copy(table), fit)


@estimator("scikit-learn", "MinMaxScaler", "MaxAbsScaler", "Normalizer")
@estimator("scikit-learn", "FunctionTransformer")
def plain_transformer(job: FitJob) -> Steps:
    """A scaled copy; a mask of NaNs while the extremes are found."""
    return _transformer(job, *float_copy(job.table), _mask(job, 1))


@estimator("scikit-learn", "Binarizer")
def binarizer(job: FitJob) -> Steps:
    """A copy, and masks of what is above the threshold and what is not."""
    return _transformer(job, also=(_mask(job, 2),))


@estimator("scikit-learn", "RobustScaler", "QuantileTransformer")
def quantile_transformer(job: FitJob) -> Steps:
    """A column at a time while fitting; the copy when transforming."""
    column = rows_part("column", job.table, 2 * F8, "one column, sorted", SCALE)
    return _transformer(job, *float_copy(job.table), column)


@estimator("scikit-learn", "PowerTransformer")
def power_transformer(job: FitJob) -> Steps:
    """Fitting transforms a copy, whose variance a scaler then takes in float64."""
    table = job.table
    copied = copies("transformed-copy", table, 1, "X, transformed", SCALE)
    size = table.elements * (F8 + 1)
    text = "X - mean as float64, NaN mask"
    variance = part("variance", size, text, f"{size:,} B", SCALE, EXACT)
    return _transformer(job, copied, variance)


def _mask(job: FitJob, count: int) -> Part:
    size = count * job.table.elements
    return part("masks", size, "masks x n x p x 1 B", f"{size:,} B", SCALE, EXACT)


@estimator("scikit-learn", "SimpleImputer")
def simple_imputer(job: FitJob) -> Steps:
    """Fit: a filled copy behind a masked array, and its mask. Transform: a copy and its mask."""
    source = f"{SKLEARN}: impute/_base.py"
    table = job.table
    mask = part(
        "missing-mask", table.elements, "n x p x 1 B", f"{table.elements:,} B", source, EXACT
    )
    # The median sorts a masked copy, whose data, mask and order are arrays of X's size.
    count = 4 if job.get("strategy") == "median" else 2
    masked = copies("masked-copies", table, count, "masked and filled copies", source)
    return _transformer(job, masked, mask, also=(mask,))


@estimator("scikit-learn", "IterativeImputer")
def iterative_imputer(job: FitJob) -> Steps:
    """Copies of X and the mask; a regression on the other columns at a time."""
    source = f"{SKLEARN}: impute/_iterative.py"
    table = job.table
    held = copies("imputed-copies", table, 6, "filled X, previous X, regression's copies", source)
    mask = part("missing-mask", table.elements, "n x p x 1 B", f"{table.elements:,} B", source)
    return _transformer(job, held, mask)


@estimator("scikit-learn", "OneHotEncoder", "OrdinalEncoder", "KBinsDiscretizer")
@estimator("scikit-learn", "LabelBinarizer", "TargetEncoder")
def encoder(job: FitJob) -> Steps:
    """Integer codes and a mask of the input, then the output."""
    source = f"{SKLEARN}: preprocessing/_encoders.py"
    columns = job.table.columns
    codes = rows_part("codes", job.table, columns * 9, "codes 8 and masks 1", source)
    made = output_of(job)
    if job.class_name == "KBinsDiscretizer":
        ordinal = made.columns == columns
        sampled = rows_part("column", job.table, F8, "one column, sorted", source)
        wider = rows_part("binned-copy", job.table, columns * F8, "X, binned", source)
        return _transformer(job, sampled, also=() if ordinal else (wider, codes, _index(job)))
    texts = _as_objects(job)
    also = (*texts, codes, _index(job)) if made.sparse else (*texts, codes)
    return _transformer(job, *texts, codes, also=also)


def _as_objects(job: FitJob) -> tuple[Part, ...]:
    """Text columns as arrays of Python strings, all of them while the encoder runs."""
    text = job.table.strings
    if text is None:
        return ()
    each = string_bytes(1, text.length, storage="object")
    size = job.table.rows * text.columns * each
    numbers = f"{job.table.rows:,} x {text.columns} x {each} B"
    formula = "n x columns x (pointer 8 + string 49 + characters)"
    return (part("strings-as-objects", size, formula, numbers, SCALE, CODE),)


def _index(job: FitJob) -> Part:
    """Column numbers of the ones as int64, before they become the 32-bit indices of CSR."""
    return rows_part("wide-indices", job.table, job.table.columns * F8, "n x p x 8 B", SCALE)


@estimator("scikit-learn", "PolynomialFeatures", "SplineTransformer")
def expansion(job: FitJob) -> Steps:
    """The output, and the input by column."""
    turned = copies("column-order-copy", job.table, 1, "X by column", SCALE)
    return _transformer(job, also=(turned,))


@estimator("scikit-learn", "TfidfVectorizer", "CountVectorizer", "HashingVectorizer")
def vectoriser(job: FitJob) -> Steps:
    """Growing index arrays and their array copies beside the vocabulary, then CSR."""
    source = f"{SKLEARN}: feature_extraction/text.py _count_vocab"
    made = output_of(job)
    stored = made.stored_elements
    # Hashing keeps no words, only their numbers.
    known = 0 if job.class_name == "HashingVectorizer" else made.columns
    words = constant("trees", "vocabulary_entry").part(
        "vocabulary", "distinct terms x (string + dict entry)", known
    )
    growing = part(
        "growing-arrays",
        stored * 16 * 1.5,
        "array.array of indices and values, over-allocated, and sorted copies",
        f"{stored:,} x 24 B",
        source,
    )
    steps = _transformer(job, growing)
    return Steps(
        tuple(Moment(m.name, (*m.parts, words)) for m in steps.fit), (words,), steps.predict
    )


def _transformer(job: FitJob, *fit: Part, also: tuple[Part, ...] = ()) -> Steps:
    """A fit that keeps nothing large, and a transform that makes the output."""
    return Steps((Moment("fit", fit),), (), (output_part(job), *also))
