"""Workload messages to values; collects what is wrong instead of stopping at the first."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from sizewright.v1 import workload_pb2 as pb
from sizewright_server.estimation.classical.network_stages import Network
from sizewright_server.estimation.frontend import takes_images
from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.problems import Violation
from sizewright_server.estimation.serving.run import ServingWorkload
from sizewright_server.estimation.workload import (
    Dataset,
    HostConditions,
    Inference,
    Layout,
    ModelSource,
    Training,
    Workload,
)
from sizewright_server.wire import models
from sizewright_server.wire.cpu import cpu_workload
from sizewright_server.wire.fit import FRAMEWORKS as FIT_FRAMEWORKS
from sizewright_server.wire.fit import FitReader
from sizewright_server.wire.keras import FRAMEWORKS as KERAS_FRAMEWORKS
from sizewright_server.wire.keras import KerasReader
from sizewright_server.wire.layouts import read_layout
from sizewright_server.wire.library_versions import (
    cuda_release,
    kernel_loading,
    without_gpu,
    wrong_versions,
)
from sizewright_server.wire.model_sources import ModelSourceReader
from sizewright_server.wire.serving import ServingReader, wants_serving
from sizewright_server.wire.surroundings import read_dataset, read_host
from sizewright_server.wire.techniques import TechniquesReader
from sizewright_server.wire.violations import from_pydantic, one_of

CHECKPOINTING = {
    pb.ACTIVATION_CHECKPOINTING_FULL: "full",
    pb.ACTIVATION_CHECKPOINTING_SELECTIVE: "selective",
}

SectionT = TypeVar("SectionT", bound=models.Section)


class WorkloadReader:
    """Reads one workload message. `problems` holds what was wrong."""

    def __init__(self, problems: list[Violation], path: str = "workload") -> None:
        self.problems = problems
        self.path = path
        self._source = ModelSourceReader(problems, path).read
        #: Layers or an image's patches say how long a sample is.
        self.shapes_are_known = False

    def read(self, message: pb.Workload) -> AnyWorkload | None:
        """The workload; None when anything was wrong."""
        before = len(self.problems)
        host = read_host(message.host, self.problems, self.path)
        self.problems += wrong_versions(dict(message.versions), f"{self.path}.versions")
        if message.WhichOneof("run") == "fit":
            return FitReader(self.problems, self.path).read(message, host)
        if message.framework in KERAS_FRAMEWORKS:
            return KerasReader(self.problems, self.path).read(message, host)
        self._check_words(message)
        if message.accelerator != "cpu":
            self.problems += without_gpu(dict(message.versions), f"{self.path}.versions")
        source = self._source(message.model)
        layers = message.model.WhichOneof("source") == "layers"
        if layers or (isinstance(source, ModelSource) and takes_images(source.config)):
            self.shapes_are_known = True
        if message.WhichOneof("run") == "inference" and wants_serving(message.inference):
            return self._serving(message, self._for_engine(message, source), host, before)
        run = self._run(message)
        dataset = self._dataset(message)
        if len(self.problems) > before or source is None or run is None or host is None:
            return None
        if message.accelerator == "cpu":
            return cpu_workload(message, source, run, dataset, host, self.problems)
        if isinstance(source, Network):
            self._wrong("model.layers", "is estimated on the CPU alone; say accelerator 'cpu'")
            return None
        return Workload(
            source,
            run,
            name=message.name,
            dataset=dataset,
            host=host,
            kernel_loading=kernel_loading(dict(message.versions)),
            cuda=cuda_release(dict(message.versions)),
        )

    def _check_words(self, message: pb.Workload) -> None:
        framework = message.framework or "pytorch"
        if framework != "pytorch":
            known = ["pytorch", *KERAS_FRAMEWORKS, *filter(None, FIT_FRAMEWORKS)]
            self._wrong("framework", one_of("framework", framework, known))
        if message.accelerator not in ("", "gpu", "cpu"):
            self._wrong("accelerator", one_of("accelerator", message.accelerator, ["gpu", "cpu"]))
        if message.backend:
            self._wrong("backend", "is of framework 'keras' alone")

    def _serving(
        self,
        message: pb.Workload,
        source: ModelSource | None,
        host: HostConditions | None,
        before: int,
    ) -> ServingWorkload | None:
        """A workload for a serving engine, or for types and settings only it takes."""
        layout = self._layout(message.inference.parallelism, "inference")
        run = ServingReader(self.problems, self.path).read(
            message.inference, source, message.model, layout, self._draft
        )
        if len(self.problems) > before or source is None or run is None or host is None:
            return None
        versions = dict(message.versions)
        loading, cuda = kernel_loading(versions), cuda_release(versions)
        return ServingWorkload(source, run, message.name, host, loading, cuda)

    def _for_engine(
        self, message: pb.Workload, source: ModelSource | Network | None
    ) -> ModelSource | None:
        """The source as an engine takes it: a configuration, on GPUs."""
        if message.accelerator == "cpu":
            words = "serving engines and quantised weights are estimated for GPUs alone"
            self._wrong("accelerator", words)
        if isinstance(source, Network):
            self._wrong("model.layers", "an engine serves a 'preset', 'hf_config' or 'safetensors'")
            return None
        return source

    def _draft(self, message: pb.Model, field: str) -> ModelSource | None:
        """A draft model."""
        source = self._source(message, field)
        if isinstance(source, Network):
            self._wrong(field, "must be a 'preset' or 'hf_config'")
            return None
        return source

    def _least_length(self, run: pb.Training | pb.Inference) -> int:
        """What an unstated length means: 1 for images and layers with shapes, else nothing."""
        return int(run.image_size > 0 or self.shapes_are_known)

    def _run(self, message: pb.Workload) -> Training | Inference | None:
        kind = message.WhichOneof("run")
        if kind == "training":
            return self._training(message.training)
        if kind == "inference":
            return self._inference(message.inference)
        self._wrong("training", "is required: 'training', 'inference' or 'fit'")
        return None

    def _training(self, message: pb.Training) -> Training | None:
        section = self._section(
            "training",
            models.TrainingSection,
            {
                "precision": message.precision,
                "micro_batch": message.micro_batch,
                "seq_len": message.seq_len or self._least_length(message),
                "gradient_accumulation_steps": message.gradient_accumulation_steps or 1,
                "checkpointing": CHECKPOINTING.get(message.activation_checkpointing, "none"),
                "attention": message.attention or "sdpa",
                "padded_batches": message.padded_batches,
                "gradient_reduce_dtype": message.gradient_reduce_dtype or None,
                "image_size": message.image_size,
                "target_len": message.target_seq_len,
                "expandable_segments": message.expandable_segments,
                "modeling_code": message.modeling_code or "transformers",
                "loop": message.training_loop or None,
                "packed": message.packed,
                "seq_len_is_limit": message.seq_len_is_limit,
                "multi_token_prediction_layers": message.multi_token_prediction_layers,
                "longest_batch_first": message.longest_batch_first,
                "variable_lengths": (
                    message.variable_lengths if message.HasField("variable_lengths") else None
                ),
            },
        )
        techniques = TechniquesReader(self.problems, f"{self.path}.training").read(message)
        layout = self._layout(message.parallelism, "training")
        if section is None or techniques is None:
            return None
        values = section.model_dump(exclude={"image_size"})
        image_size = section.image_size or None
        return Training(**values, **techniques, image_size=image_size, layout=layout)

    def _inference(self, message: pb.Inference) -> Inference | None:
        generates = message.new_tokens > 0
        kept = 1 if generates else 0
        section = self._section(
            "inference",
            models.InferenceSection,
            {
                "engine": message.engine or "transformers",
                "weight_dtype": message.weight_dtype,
                "kv_dtype": message.kv_dtype or message.weight_dtype,
                "batch": message.batch,
                "input_tokens": message.input_tokens or self._least_length(message),
                "new_tokens": message.new_tokens,
                "cache": message.cache or ("dynamic" if generates else "none"),
                "logits_to_keep": (
                    message.logits_to_keep if message.HasField("logits_to_keep") else kept
                ),
                "attention": message.attention or "sdpa",
                "padded_batches": message.padded_batches,
                "image_size": message.image_size,
                "recurrence": message.recurrence or None,
            },
        )
        layout = self._layout(message.parallelism, "inference")
        if layout is not None and layout.zero:
            self._wrong("inference.parallelism.explicit.zero", "must be 0: nothing is trained")
        if section is None:
            return None
        values = section.model_dump(exclude={"image_size"})
        return Inference(**values, image_size=section.image_size or None, layout=layout)

    def _layout(self, message: pb.Parallelism, run: str) -> Layout | None:
        if message.WhichOneof("choice") != "explicit":
            return None
        path = f"{self.path}.{run}.parallelism.explicit"
        return read_layout(message.explicit, path, self.problems)

    def _dataset(self, message: pb.Workload) -> Dataset | None:
        if not message.HasField("dataset"):
            return None
        return read_dataset(message.dataset, self.problems, self.path)

    def _section(self, path: str, model: type[SectionT], values: dict[str, Any]) -> SectionT | None:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            self.problems += from_pydantic(error, f"{self.path}.{path}")
            return None

    def _wrong(self, field: str, description: str) -> None:
        self.problems.append(Violation(f"{self.path}.{field}", description))
