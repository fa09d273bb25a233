"""The data and the node around a network, from messages to values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError

from sizewright.v1 import workload_pb2 as pb
from sizewright_server.estimation.problems import Violation
from sizewright_server.estimation.workload import Dataset, HostConditions
from sizewright_server.wire import models
from sizewright_server.wire.violations import from_pydantic

SectionT = TypeVar("SectionT", bound=models.Section)


def read_host(
    message: pb.HostConditions, problems: list[Violation], path: str
) -> HostConditions | None:
    """`host`; None when anything in it was wrong."""
    section = _section(
        f"{path}.host",
        models.HostSection,
        {
            "loader_workers": message.loader_workers,
            "prefetch_factor": message.prefetch_factor or 2,
            "pin_memory": message.pin_memory,
            "checkpoint_load": message.checkpoint_load or "safetensors",
            "checkpoint_save": message.checkpoint_save or None,
            "worker_start": message.worker_start or "fork",
            "kubernetes": message.kubernetes,
            "container_limit_bytes": message.container_limit_bytes,
            "shared_memory_bytes": message.shared_memory_bytes,
            "notebook": message.notebook,
            "other_processes_bytes": message.other_processes_bytes,
        },
        problems,
    )
    return None if section is None else HostConditions(**section.model_dump())


def read_dataset(
    message: pb.Dataset, problems: list[Violation], path: str, *, container: str = "memory-mapped"
) -> Dataset | None:
    """`dataset` of a network; `container` is what an empty one means."""
    field = f"{path}.dataset"
    elements = read_sample_elements(message, problems, field)
    decoded = message.HasField("image") or message.HasField("audio")
    usual = "uint8" if message.HasField("image") else "float32" if decoded else "int64"
    section = _section(
        field,
        models.DatasetSection,
        {
            "rows": message.rows,
            "tokens_per_row": message.tokens_per_row,
            "columns": message.columns,
            "dtype": message.dtype or usual,
            "container": message.container or container,
            "shuffle_buffer": message.shuffle_buffer,
            "cached": message.cached,
        },
        problems,
    )
    if section is None or elements is None:
        return None
    return Dataset(**section.model_dump(), sample_elements=elements)


def read_sample_elements(message: pb.Dataset, problems: list[Violation], field: str) -> int | None:
    """Elements of one decoded sample; 0 where rows are no images or clips, None when wrong."""
    if message.HasField("image") and message.HasField("audio"):
        problems.append(Violation(f"{field}.audio", "rows are images or audio, not both"))
        return None
    if message.HasField("image"):
        image = message.image
        values = {
            "height": image.height,
            "width": image.width,
            "channels": image.channels or 3,
        }
        read = _section(f"{field}.image", models.ImageSection, values, problems)
        return None if read is None else read.height * read.width * read.channels
    if message.HasField("audio"):
        audio = message.audio
        clip = _section(
            f"{field}.audio",
            models.AudioSection,
            {
                "seconds": audio.seconds,
                "sample_rate_hz": audio.sample_rate_hz,
                "channels": audio.channels or 1,
            },
            problems,
        )
        return None if clip is None else int(clip.seconds * clip.sample_rate_hz) * clip.channels
    return 0


def _section(
    path: str, model: type[SectionT], values: Mapping[str, object], problems: list[Violation]
) -> SectionT | None:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems += from_pydantic(error, path)
        return None
