"""Model messages to where the model comes from: a preset, a configuration or layers."""

from __future__ import annotations

import json
from typing import Any

from sizewright.v1 import workload_pb2 as pb
from sizewright_server.estimation.classical.network_stages import Network
from sizewright_server.estimation.presets import UnknownPreset, find_preset
from sizewright_server.estimation.problems import Violation
from sizewright_server.estimation.workload import ModelSource
from sizewright_server.wire.cpu import read_layers
from sizewright_server.wire.violations import echoed, one_of

MAX_CONFIG_BYTES = 256 * 1024
HEADS = (
    "causal-lm",
    "masked-lm",
    "pretraining",
    "sequence-classification",
    "image-classification",
    "none",
)


class ModelSourceReader:
    """Reads a workload's model messages. `problems` collects what is wrong."""

    def __init__(self, problems: list[Violation], path: str) -> None:
        self.problems = problems
        self.path = path

    def read(self, message: pb.Model, field: str = "model") -> ModelSource | Network | None:
        """The source; None when anything was wrong."""
        kind = message.WhichOneof("source")
        if kind is None:
            self._wrong(field, "is required: 'preset', 'hf_config' or 'safetensors'")
            return None
        config = None
        preset = None
        if kind == "preset":
            config = self._preset(message.preset)
            preset = message.preset
        elif kind == "hf_config":
            config = self._config(message.hf_config.json)
        elif kind == "layers":
            return read_layers(message.layers, self.problems, self.path)
        elif kind == "safetensors":
            config = self._stored(message.safetensors)
        else:
            self._wrong(
                f"{field}.{kind}", f"{kind!r} is not built yet; use 'preset' or 'hf_config'"
            )
        head = message.head or None
        if head is not None and head not in HEADS:
            self._wrong("model.head", one_of("head", head, HEADS))
        if message.label_count < 0:
            self._wrong("model.label_count", f"must be at least 0, not {message.label_count}")
        if config is None:
            return None
        labels = message.label_count or None
        return ModelSource(
            config,
            preset=preset,
            head=head,  # type: ignore[arg-type]
            label_count=labels,
            generic=message.generic_block,
        )

    def _preset(self, name: str) -> dict[str, Any] | None:
        try:
            return find_preset(name).config
        except UnknownPreset as unknown:
            near = ", ".join(unknown.near)
            hint = f"; near: {near}" if near else ""
            self._wrong(
                "model.preset", f"no preset {echoed(name)}{hint}; `sizewright presets` lists all"
            )
            return None

    def _config(self, text: str, field: str = "model.hf_config") -> dict[str, Any] | None:
        if len(text.encode()) > MAX_CONFIG_BYTES:
            self._wrong(field, f"is longer than {MAX_CONFIG_BYTES:,} bytes")
            return None
        try:
            config = json.loads(text)
        except (ValueError, RecursionError) as error:
            self._wrong(field, f"is not JSON: {error}")
            return None
        if not isinstance(config, dict):
            self._wrong(field, "must be a JSON object, as a config.json is")
            return None
        return config

    def _stored(self, message: pb.SafetensorsModel) -> dict[str, Any] | None:
        """The configuration beside weight files."""
        if not message.hf_config.json:
            self._wrong(
                "model.safetensors.hf_config", "is required: the config.json beside the files"
            )
            return None
        if any(tensor.stored_bytes < 0 for tensor in message.tensors):
            self._wrong("model.safetensors.tensors", "stored_bytes must be at least 0")
        return self._config(message.hf_config.json, "model.safetensors.hf_config")

    def _wrong(self, field: str, description: str) -> None:
        self.problems.append(Violation(f"{self.path}.{field}", description))
