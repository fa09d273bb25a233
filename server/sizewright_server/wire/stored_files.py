"""Weight files of a model message: what they hold, and in which type most of it is."""

from __future__ import annotations

from sizewright.v1 import workload_pb2 as pb

#: Plain types of safetensors headers.
FILE_TYPES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "f8-e4m3": "fp8", "f8_e4m3": "fp8"}


def stored_bytes(model: pb.Model) -> int | None:
    """Bytes that weight files hold; None where the model is not described by files."""
    if model.WhichOneof("source") != "safetensors" or not model.safetensors.tensors:
        return None
    return sum(tensor.stored_bytes for tensor in model.safetensors.tensors)


def file_type(model: pb.Model) -> str:
    """The type most bytes of the files are in; empty when there are none."""
    sizes: dict[str, int] = {}
    if model.WhichOneof("source") == "safetensors":
        for tensor in model.safetensors.tensors:
            kind = FILE_TYPES.get(tensor.dtype.lower(), "")
            sizes[kind] = sizes.get(kind, 0) + tensor.stored_bytes
    return max(sizes, key=lambda kind: sizes[kind]) if sizes else ""
