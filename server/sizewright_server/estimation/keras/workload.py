"""A Keras model that trains or infers, on TensorFlow or torch, on the CPU or on GPUs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sizewright_server.estimation.host_data import sample_bytes
from sizewright_server.estimation.keras.graph import KerasNetwork
from sizewright_server.estimation.optimizers import FP32
from sizewright_server.estimation.workload import Dataset, HostConditions

Backend: TypeAlias = Literal["tensorflow", "torch"]
LABEL_BYTES = 8


@dataclass(frozen=True, slots=True)
class KerasWorkload:
    """One Keras job. `batch` is that of one replica, `replicas` 0 as many as the GPUs allow.

    `states_width` is what the optimizer keeps of a parameter, in bytes; 0 where nothing is trained.
    """

    network: KerasNetwork
    training: bool
    batch: int
    states_width: float = 0.0
    mixed: bool = False
    backend: Backend = "tensorflow"
    on_gpu: bool = True
    replicas: int = 0
    dataset: Dataset | None = None
    name: str = ""
    host: HostConditions = field(default_factory=HostConditions)
    #: The release of CUDA it runs with, such as "12.4"; empty where none is stated.
    cuda: str = ""

    @property
    def weight_bytes(self) -> int:
        """All variables, which are float32 under mixed precision too."""
        return self.network.parameters * FP32

    @property
    def activation_width(self) -> int:
        """Bytes of an activation's element."""
        return FP32 // 2 if self.mixed else FP32

    @property
    def activation_bytes(self) -> int:
        """What lives at the worst moment of a step, for one replica's batch."""
        net = self.network
        elements = net.training_elements() if self.training else net.inference_elements()
        return int(elements * self.batch * self.activation_width)

    @property
    def batch_bytes(self) -> int:
        """One batch as float32."""
        return self.batch * self.network.input_elements * FP32

    @property
    def data_bytes(self) -> int:
        """The arrays in memory, labels with them; 0 for a stream or a file."""
        data = self.dataset
        if data is None or data.container in ("streaming", "memory-mapped"):
            return 0
        one = sample_bytes(data) if self._states_shape else self.network.input_elements * FP32
        return data.rows * (one + LABEL_BYTES)

    @property
    def _states_shape(self) -> bool:
        data = self.dataset
        return data is not None and bool(
            data.sample_elements or data.columns or data.tokens_per_row
        )

    @property
    def architecture(self) -> str:
        """The model in one line."""
        kinds = [node.spec.kind for node in self.network.nodes]
        shown = f"keras on {self.backend}, {len(kinds)} layers, "
        return shown + f"{self.network.parameters:,} parameters"
