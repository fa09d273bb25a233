"""Transformers of scikit-learn: what a fit and a transform hold, and the table that comes out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from sizewright_server.estimation.classical.constants import constant, keys
from sizewright_server.estimation.classical.dataset import string_bytes
from sizewright_server.estimation.classical.job import FitJob, Table
from sizewright_server.estimation.classical.linear import (
    F8,
    copies,
    float_copy,
    rows_part,
    taken_bytes,
)
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


def output_of(job: FitJob) -> Table:
    """The table a transformer makes of its input. Classes that are not transformers keep it."""
    found = _OUTPUTS.get(job.class_name)
    return found(job) if found else replace(job.table, container="numpy")


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


def is_transformer(job: FitJob) -> bool:
    """Whether a class makes a table of another."""
    return job.class_name in _OUTPUTS


def _floats(table: Table) -> Table:
    dtype = table.dtype if table.floating else "float64"
    return replace(table, dtype=dtype, container="csr" if table.sparse else "numpy")


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


# -- outputs ------------------------------------------------------------------------------------


def _floats_of(job: FitJob) -> Table:
    return _floats(job.table)


def _one_hot(job: FitJob) -> Table:
    table = job.table
    each = max(table.categories, 2)
    columns = table.columns * each
    if job.class_name == "KBinsDiscretizer":
        each = job.count("n_bins", 5)
        columns = table.columns * each
        if job.word("encode", "onehot", ("onehot", "onehot-dense", "ordinal")) == "ordinal":
            return _floats(table)
    asked = job.get("sparse_output", True) and job.class_name == "OneHotEncoder"
    if asked or (job.class_name == "KBinsDiscretizer" and job.get("encode") != "onehot-dense"):
        return Table(table.rows, columns, "float64", "csr", density=1 / each, classes=table.classes)
    return replace(table, columns=columns, dtype="float64", container="numpy")


def _polynomial(job: FitJob) -> Table:
    """Terms of up to `degree` of p columns: binomial(p + d, d), less the constant if asked."""
    table, degree = job.table, job.count("degree", 2)
    terms = math.comb(table.columns + min(degree, 8), min(degree, 8))
    if job.get("interaction_only", False):
        terms = sum(math.comb(table.columns, d) for d in range(min(degree, 8) + 1))
    return replace(_floats(table), columns=terms - (not job.get("include_bias", True)))


def _terms(job: FitJob) -> Table:
    """Documents by distinct terms; the vocabulary is bounded by `max_features`."""
    table = job.table
    share = constant("trees", "distinct_terms")
    words = max(table.text_tokens, 1)
    # Heaps' law: distinct terms grow as the square root of the running text.
    vocabulary = int(share.value * math.sqrt(table.rows * words))
    limit = job.number("max_features")
    if limit is not None:
        vocabulary = min(vocabulary, int(limit))
    if job.class_name == "HashingVectorizer":
        vocabulary = job.count("n_features", 2**20)
    stored = table.rows * words * constant("trees", "distinct_per_document").value
    density = min(1.0, stored / max(1, table.rows * vocabulary))
    return Table(table.rows, max(1, vocabulary), "float64", "csr", density, table.classes)


def _projected(job: FitJob) -> Table:
    wanted = job.get("n_components", 2 if job.class_name != "PCA" else None)
    columns = min(job.table.rows, job.table.columns)
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        columns = min(columns, wanted)
    return replace(_floats(job.table), columns=columns, container="numpy")


def _splines(job: FitJob) -> Table:
    """Each column becomes knots + degree - 1 splines, less one without the constant."""
    knots, degree = job.count("n_knots", 5), job.count("degree", 3)
    each = knots + degree - 1 - (not job.get("include_bias", True))
    return replace(_floats(job.table), columns=job.table.columns * max(each, 1))


def _sampled(job: FitJob) -> Table:
    """A random map to `n_components` features; by Johnson and Lindenstrauss where it is "auto"."""
    wanted = job.get("n_components", 100)
    if not isinstance(wanted, int) or isinstance(wanted, bool):
        eps = job.number("eps", 0.1) or 0.1
        wanted = int(4 * math.log(max(job.table.rows, 2)) / (eps**2 / 2 - eps**3 / 3))
    return replace(_floats(job.table), columns=max(1, wanted), container="numpy")


def _chi_squared(job: FitJob) -> Table:
    steps = 2 * job.count("sample_steps", 2) - 1
    return replace(_floats(job.table), columns=job.table.columns * steps)


def _percent(job: FitJob) -> Table:
    share = (job.number("percentile", 10) or 0) / 100
    return replace(_floats(job.table), columns=max(1, int(job.table.columns * share)))


def _selected(job: FitJob) -> Table:
    wanted = job.get("k", 10)
    columns = job.table.columns if wanted == "all" else min(job.table.columns, job.count("k", 10))
    return replace(_floats(job.table), columns=columns)


_OUTPUTS: dict[str, Callable[[FitJob], Table]] = {
    **dict.fromkeys(
        (
            "StandardScaler",
            "MinMaxScaler",
            "MaxAbsScaler",
            "Normalizer",
            "Binarizer",
            "RobustScaler",
            "QuantileTransformer",
            "PowerTransformer",
            "SimpleImputer",
            "IterativeImputer",
            "KNNImputer",
        ),
        lambda job: _floats(job.table),
    ),
    **dict.fromkeys(("OneHotEncoder", "KBinsDiscretizer"), _one_hot),
    "OrdinalEncoder": lambda job: replace(job.table, dtype="float64", container="numpy"),
    "PolynomialFeatures": _polynomial,
    **dict.fromkeys(("TfidfVectorizer", "CountVectorizer", "HashingVectorizer"), _terms),
    **dict.fromkeys(("PCA", "TruncatedSVD", "IncrementalPCA", "NMF", "FastICA"), _projected),
    "SelectKBest": _selected,
    "SelectPercentile": _percent,
    "SplineTransformer": _splines,
    "AdditiveChi2Sampler": _chi_squared,
    **dict.fromkeys(
        (
            "GaussianRandomProjection",
            "SparseRandomProjection",
            "RBFSampler",
            "Nystroem",
            "PolynomialCountSketch",
            "SkewedChi2Sampler",
        ),
        _sampled,
    ),
    **dict.fromkeys(
        ("FactorAnalysis", "MiniBatchNMF", "SparsePCA", "MiniBatchSparsePCA", "PLSRegression"),
        _projected,
    ),
    **dict.fromkeys(("VarianceThreshold", "SelectFpr", "SelectFdr", "SelectFwe"), _floats_of),
}

__all__ = ["CODE", "output_of", "output_part", "taken_bytes"]
