"""Keras workloads, from messages to values: a model's JSON, and how it trains or infers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from sizewright.v1 import workload_pb2 as pb
from sizewright_server.estimation.host_states import state_width
from sizewright_server.estimation.keras.graph import KerasNetwork, network_from_json
from sizewright_server.estimation.keras.workload import KerasWorkload
from sizewright_server.estimation.optimizers import FP32, optimizers
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.workload import HostConditions
from sizewright_server.wire.library_versions import cuda_release
from sizewright_server.wire.models import MAX_RANKS, MAX_TOKENS, Count, Section
from sizewright_server.wire.surroundings import read_dataset
from sizewright_server.wire.violations import echoed, from_pydantic, one_of

FRAMEWORKS = ("tensorflow", "keras")
MAX_MODEL_BYTES = 1024 * 1024


class KerasTrainingSection(Section):
    """`training` of a Keras model."""

    precision: Literal["fp32", "fp16-mixed", "bf16-mixed"]
    micro_batch: Count
    seq_len: Annotated[int, Field(ge=0, le=MAX_TOKENS)]


class KerasInferenceSection(Section):
    """`inference` of a Keras model."""

    weight_dtype: Literal["fp32"]
    batch: Count
    input_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)]


@dataclass(frozen=True, slots=True)
class _Run:
    """What both kinds of run come to."""

    training: bool
    batch: int
    length: int
    optimizer: str = ""
    mixed: bool = False


class KerasReader:
    """Reads a workload of framework "tensorflow" or "keras". `problems` collects what is wrong."""

    def __init__(self, problems: list[Violation], path: str) -> None:
        self.problems = problems
        self.path = path

    def read(self, message: pb.Workload, host: HostConditions | None) -> KerasWorkload | None:
        """The workload; None when anything was wrong."""
        before = len(self.problems)
        backend, accelerator = self._words(message)
        run = self._run(message)
        network = self._network(message.model, 0 if run is None else run.length)
        dataset = None
        if message.HasField("dataset"):
            dataset = read_dataset(message.dataset, self.problems, self.path, container="in-memory")
        replicas = self._replicas(message)
        if len(self.problems) > before or network is None or run is None or host is None:
            return None
        width = state_width(optimizers()[run.optimizer], FP32) if run.training else 0.0
        return KerasWorkload(
            network,
            training=run.training,
            batch=run.batch,
            states_width=width,
            mixed=run.mixed,
            backend=backend,
            on_gpu=accelerator == "gpu",
            replicas=replicas,
            dataset=dataset,
            name=message.name,
            host=host,
            cuda=cuda_release(dict(message.versions)),
        )

    def _words(self, message: pb.Workload) -> tuple[Any, str]:
        backend, accelerator = message.backend or "tensorflow", message.accelerator or "gpu"
        if backend not in ("tensorflow", "torch"):
            self._wrong("backend", one_of("backend", backend, ["tensorflow", "torch"]))
        if message.framework == "tensorflow" and backend != "tensorflow":
            self._wrong("backend", "framework 'tensorflow' runs on 'tensorflow'; use 'keras'")
        if accelerator not in ("gpu", "cpu"):
            self._wrong("accelerator", one_of("accelerator", accelerator, ["gpu", "cpu"]))
        return backend, accelerator

    def _network(self, message: pb.Model, length: int) -> KerasNetwork | None:
        if message.WhichOneof("source") != "keras":
            words = "is required by this framework: the JSON that model.to_json() writes"
            self._wrong("model.keras", words)
            return None
        text = message.keras.json
        if len(text.encode()) > MAX_MODEL_BYTES:
            self._wrong("model.keras", f"is longer than {MAX_MODEL_BYTES:,} bytes")
            return None
        try:
            return network_from_json(text, length=length)
        except UnsupportedWorkload as error:
            self.problems += error.violations
            return None

    def _run(self, message: pb.Workload) -> _Run | None:
        kind = message.WhichOneof("run")
        if kind == "training":
            given = message.training
            self._unused(given, "training", ("activation_checkpointing", "adapter"))
            values: dict[str, Any] = {
                "precision": given.precision,
                "micro_batch": given.micro_batch,
                "seq_len": given.seq_len,
            }
            read = self._section("training", KerasTrainingSection, values)
            name = given.optimizer.name
            if name not in optimizers():
                words = one_of("optimizer", name, sorted(optimizers()))
                self._wrong("training.optimizer.name", words)
                return None
            if read is None:
                return None
            mixed = read.precision != "fp32"
            return _Run(True, read.micro_batch, read.seq_len, name, mixed)
        if kind == "inference":
            wanted = message.inference
            self._unused(wanted, "inference", ("engine", "new_tokens", "kv_dtype", "cache"))
            values = {
                "weight_dtype": wanted.weight_dtype or "fp32",
                "batch": wanted.batch,
                "input_tokens": wanted.input_tokens,
            }
            asked = self._section("inference", KerasInferenceSection, values)
            return None if asked is None else _Run(False, asked.batch, asked.input_tokens)
        self._wrong("training", "is required: 'training' or 'inference'")
        return None

    def _unused(self, message: Any, section: str, names: tuple[str, ...]) -> None:
        """Refuses settings that mean nothing to Keras."""
        for field, value in message.ListFields():
            if field.name in names:
                self._wrong(f"{section}.{field.name}", f"{echoed(str(value))} is not of Keras")

    def _replicas(self, message: pb.Workload) -> int:
        """Replicas of a distribution strategy; 0 takes every GPU."""
        kind = message.WhichOneof("run")
        if kind is None:
            return 0
        given = getattr(message, kind).parallelism
        if given.WhichOneof("choice") != "explicit":
            return 0
        path = f"{kind}.parallelism.explicit"
        for field, value in given.explicit.ListFields():
            if field.name != "dp" and value not in (0, 1):
                words = "Keras strategies replicate the model over GPUs; use dp alone"
                self._wrong(f"{path}.{field.name}", words)
        if not 0 <= given.explicit.dp <= MAX_RANKS:
            self._wrong(f"{path}.dp", f"must be from 0 to {MAX_RANKS:,}, not {given.explicit.dp}")
        return int(given.explicit.dp)

    def _section(self, path: str, model: type[Any], values: dict[str, Any]) -> Any:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            self.problems += from_pydantic(error, f"{self.path}.{path}")
            return None

    def _wrong(self, field: str, description: str) -> None:
        self.problems.append(Violation(f"{self.path}.{field}", description))
