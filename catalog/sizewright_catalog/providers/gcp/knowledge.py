"""The data file of what the two APIs do not say of each other."""

from __future__ import annotations

from functools import cache
from importlib import resources

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(extra="allow")


class Prefixes(_Section):
    """Machine types by how their names begin."""

    prefixes: tuple[str, ...]


class Hours(_Section):
    """A number of hours."""

    value: int = Field(gt=0)


class Attachable(_Section):
    """GPUs that are attached to machines of some series, with the most vCPUs by number of GPUs."""

    series: tuple[str, ...]
    most_vcpus: dict[str, dict[int, int]]


class Knowledge(BaseModel):
    """Sections of `machines.json`; each says where it is from under `_source`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = Field(alias="_about")
    billed_vcpus: dict[str, float | str]
    sku_family: dict[str, str]
    family_words: dict[str, str]
    gpu_skus: dict[str, str]
    whole_slices: dict[str, bool | str]
    gpu_fraction: dict[str, float | str]
    not_on_demand: Prefixes
    ssd_partition_gib: dict[str, int | str]
    attachable: Attachable
    tpus: Prefixes
    hours_per_month: Hours


@cache
def knowledge() -> Knowledge:
    """The file, read once and checked."""
    file = resources.files("sizewright_catalog.providers.gcp").joinpath("machines.json")
    return Knowledge.model_validate_json(file.read_text(encoding="utf-8"))
