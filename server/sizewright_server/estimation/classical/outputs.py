"""The table that a transformer of scikit-learn makes of its input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.job import FitJob, Table


def output_of(job: FitJob) -> Table:
    """The table a transformer makes of its input. Classes that are not transformers keep it."""
    found = _OUTPUTS.get(job.class_name)
    return found(job) if found else replace(job.table, container="numpy")


def is_transformer(job: FitJob) -> bool:
    """Whether a class makes a table of another."""
    return job.class_name in _OUTPUTS


def _floats(table: Table) -> Table:
    dtype = table.dtype if table.floating else "float64"
    return replace(table, dtype=dtype, container="csr" if table.sparse else "numpy")


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
