"""Generalised, robust, Bayesian and stepwise regressions of scikit-learn."""

from __future__ import annotations

import math

from sizewright_server.estimation.classical.job import FitJob
from sizewright_server.estimation.classical.linear import (
    F8,
    coefficients,
    copies,
    float_copy,
    rows_part,
    square,
    taken_bytes,
)
from sizewright_server.estimation.classical.parts import (
    SKLEARN,
    Doubt,
    Moment,
    Steps,
    fit_of,
    part,
)
from sizewright_server.estimation.classical.registry import estimator


@estimator("scikit-learn", "PoissonRegressor", "GammaRegressor", "TweedieRegressor")
def generalised_linear(job: FitJob) -> Steps:
    """lbfgs over the loss: arrays per row."""
    source = f"{SKLEARN}: linear_model/_glm/glm.py"
    arrays = rows_part("loss-arrays", job.table, 5 * F8, "5 x n x 8 B", source)
    return fit_of(*float_copy(job.table), arrays, model=(coefficients(job),))


@estimator("scikit-learn", "TheilSenRegressor")
def theil_sen(job: FitJob) -> Steps:
    """Each drawn subset is a view that keeps a permutation of all rows alive."""
    source = f"{SKLEARN}: linear_model/_theil_sen.py, numpy choice(replace=False)"
    table = job.table
    asked = job.count("n_subsamples", table.columns + 1)
    drawn = min(job.count("max_subpopulation", 10_000), math.comb(min(table.rows, 10_000), asked))
    size = drawn * table.rows * F8
    text = "subsets x n x 8 B"
    held = part("permutations", size, text, f"{drawn:,} x {table.rows:,} x 8 B", source)
    return fit_of(*float_copy(table), held, model=(coefficients(job),))


@estimator("scikit-learn", "HuberRegressor")
def huber(job: FitJob) -> Steps:
    """The loss copies the rows within epsilon deviations, and negates the copy.

    Of normal residuals the share within epsilon is erf(epsilon / sqrt 2): 0.82 at 1.35; before the
    fit is close it is less.
    """
    source = f"{SKLEARN}: linear_model/_huber.py _huber_loss_and_gradient"
    table, epsilon = job.table, job.number("epsilon", 1.35) or 1.35
    inside = math.erf(epsilon / math.sqrt(2))
    size = 2 * inside * table.elements * taken_bytes(table)
    text = "2 x rows within epsilon: a copy, and its negative"
    numbers = f"2 x {inside:.2f} X"
    moved = part("inlier-rows", size, text, numbers, source, Doubt(0.5, 1.2, "medium"))
    arrays = rows_part("loss-arrays", table, 5 * F8, "5 x n x 8 B", source)
    return fit_of(*float_copy(table), moved, arrays, model=(coefficients(job),))


@estimator("scikit-learn", "BayesianRidge", "ARDRegression")
def bayesian(job: FitJob) -> Steps:
    """A centred copy and its singular vectors."""
    source = f"{SKLEARN}: linear_model/_bayes.py, scipy.linalg.svd"
    count = 2 if job.class_name == "ARDRegression" else 3
    held = copies("centred-and-svd", job.table, count, "centred X + LAPACK's copy + U", source)
    return fit_of(*float_copy(job.table), held, model=(coefficients(job),))


@estimator("scikit-learn", "Lars", "LassoLars", "LassoLarsIC", "OrthogonalMatchingPursuit")
def least_angle(job: FitJob) -> Steps:
    """A centred copy, and the Gram matrix it is replaced by."""
    source = f"{SKLEARN}: linear_model/_least_angle.py, _omp.py"
    copied = copies("centred-features", job.table, 1, "centred X", source)
    gram = square("gram", job.table.columns, 2, "X'X and its factor", source)
    return Steps(
        (Moment("fit", (*float_copy(job.table), copied, gram, coefficients(job))),),
        (coefficients(job),),
    )
