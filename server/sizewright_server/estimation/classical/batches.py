"""Tables that are never whole in memory: batches that an estimator takes one after another."""

from __future__ import annotations

from sizewright_server.estimation.classical.job import FitJob
from sizewright_server.estimation.classical.parts import Doubt, part
from sizewright_server.estimation.memory import Part
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation

#: Rows of a batch where the file's chunks do not say it.
BATCH_ROWS = 100_000
#: A batch as it was read, and the library's view or cast of it.
BATCH_COPIES = 2
#: Classes with an interface that takes batches; of scikit-learn those with `partial_fit`.
TAKES_BATCHES = {
    "xgboost": {"QuantileDMatrix", "ExtMemQuantileDMatrix"},
    "lightgbm": {"Dataset"},
    "scikit-learn": {
        "BernoulliNB",
        "BernoulliRBM",
        "Birch",
        "CategoricalNB",
        "ComplementNB",
        "DictionaryLearning",
        "GaussianNB",
        "HashingVectorizer",
        "IncrementalPCA",
        "LatentDirichletAllocation",
        "MLPClassifier",
        "MLPRegressor",
        "MaxAbsScaler",
        "MinMaxScaler",
        "MiniBatchDictionaryLearning",
        "MiniBatchKMeans",
        "MiniBatchNMF",
        "MiniBatchSparsePCA",
        "MultinomialNB",
        "PassiveAggressiveClassifier",
        "PassiveAggressiveRegressor",
        "Perceptron",
        "SGDClassifier",
        "SGDOneClassSVM",
        "SGDRegressor",
        "StandardScaler",
    },
}


def is_streamed(job: FitJob) -> bool:
    """Whether the table comes in batches."""
    return job.table.container == "streaming"


def check_batches(job: FitJob) -> None:
    """Raises UnsupportedWorkload for a stream that the class cannot take, and for pages of none."""
    takes = job.class_name in TAKES_BATCHES[job.library]
    if is_streamed(job) and not takes:
        known = ", ".join(sorted(TAKES_BATCHES[job.library]))
        words = (
            f"cannot be 'streaming': {job.class_name} needs the whole table; {known} take batches"
        )
        raise UnsupportedWorkload(Violation("workload.dataset.container", words))
    if job.class_name == "ExtMemQuantileDMatrix" and not is_streamed(job):
        words = "must be 'streaming': ExtMemQuantileDMatrix reads batches from an iterator"
        raise UnsupportedWorkload(Violation("workload.dataset.container", words))


def batch_rows(job: FitJob) -> int:
    """Rows of one batch."""
    asked = job.file.chunk_rows if job.file is not None else 0
    return min(asked or BATCH_ROWS, job.table.rows)


def batch_part(job: FitJob) -> Part:
    """The batch in flight."""
    rows, table = batch_rows(job), job.table
    size = BATCH_COPIES * rows * table.columns * table.item_bytes
    numbers = f"{BATCH_COPIES} x {rows:,} x {table.columns:,} x {table.item_bytes} B"
    stated = job.file is not None and job.file.chunk_rows
    doubt = Doubt(0.5, 1.5, "medium") if stated else Doubt(0.1, 3.0, "low")
    return part(
        "batch", size, "copies x batch rows x p x bytes", numbers, "DataIter, Sequence", doubt
    )
