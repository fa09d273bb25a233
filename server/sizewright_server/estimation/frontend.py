"""The Hugging Face front end: a config.json becomes an `Architecture`.

What differs between families is data (`data/families.json`); this module only reads it.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.config_reader import ConfigReader
from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.generic import generic_family
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.stack_reader import read_runs
from sizewright_server.estimation.workload import Head, ModelSource
from sizewright_server.estimation.wrappers import text_config, wrapped, wrappers

__all__ = ["families", "model_type_of", "read_architecture", "takes_images"]


@cache
def families() -> dict[str, dict[str, Any]]:
    """Every family by model_type."""
    table: dict[str, dict[str, Any]] = data_of("sizewright_server.estimation", "families")
    return {name: entry for name, entry in table.items() if not name.startswith("_")}


def read_architecture(
    source: ModelSource, field: str, image_size: int | None = None, *, text_alone: bool = False
) -> Architecture:
    """The architecture of a configuration; `image_size` is the run's own where it states one.

    `text_alone` reads a checkpoint of several modalities as a run without images has it.

    Raises UnsupportedWorkload, naming `field`, for a model_type that is not known, a missing size
    or a size that contradicts another.
    """
    if source.preset is not None and source.config is find_preset(source.preset).config:
        stated = source.head, source.label_count, source.generic
        return _of_preset(source.preset, field, *stated, image_size, text_alone)
    return _read(source, field, image_size, text_alone)


@lru_cache(maxsize=512)
def _of_preset(
    name: str,
    field: str,
    head: Head | None,
    label_count: int | None,
    generic: bool,
    image_size: int | None,
    text_alone: bool,
) -> Architecture:
    """A preset's architecture: bundled data, read once like the rest of it."""
    config = find_preset(name).config
    source = ModelSource(config, name, head, label_count, generic)
    return _read(source, field, image_size, text_alone)


def _read(
    source: ModelSource, field: str, image_size: int | None, text_alone: bool
) -> Architecture:
    name = str(model_type_of(source.config))
    if text_alone and name in wrappers():
        inner = text_config(source.config, name, frozenset(families()))
        text = _read(replace(source, config=inner, preset=None), field, image_size, False)
        return wrapped(text, source.config, name, field)
    generic = source.generic and model_type_of(source.config) not in families()
    family = generic_family(source.config) if generic else _family(source.config, field)
    config = source.config
    if source.label_count:
        config = {**config, "num_labels": source.label_count}
    reader = ConfigReader(config, family, field)
    reader.image_size = image_size
    sizes = reader.sizes()
    style = reader.style(sizes)
    head = reader.head(source)
    if family.get("stacks") == "encoder-decoder":
        reader.decoder_sizes(sizes)  # so that what is wrong with them is named with the rest
    reader.refuse_if_wrong()
    try:
        runs = read_runs(reader, style, sizes)
    except ValueError as wrong:
        raise UnsupportedWorkload(Violation(field, str(wrong))) from wrong
    model_type = str(model_type_of(source.config))
    return Architecture(model_type, style, sizes, head, runs, generic)


def takes_images(config: dict[str, Any]) -> bool:
    """Whether a model reads images, whose patches say how long a sample is."""
    return "image_size" in families().get(str(model_type_of(config)), {}).get("keys", {})


def model_type_of(config: dict[str, Any]) -> str | None:
    """The model_type of a configuration, or of the configuration class it names in `class`."""
    stated = config.get("model_type")
    if stated is not None:
        return str(stated)
    named = str(config.get("class", "")).removesuffix("Config")
    plain = {_letters(name): name for name in (*families(), *wrappers())}
    return plain.get(_letters(named))


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _family(config: dict[str, Any], field: str) -> dict[str, Any]:
    model_type = model_type_of(config)
    known = families()
    if model_type in known:
        return known[str(model_type)]
    if model_type is None:
        raise UnsupportedWorkload(Violation(field, _without_type(config)))
    near = difflib.get_close_matches(str(model_type), known, n=3)
    hint = f"; near: {', '.join(near)}" if near else ""
    raise UnsupportedWorkload(
        Violation(
            field,
            f"model_type {model_type!r} is not built yet{hint}; {_instead(config)}; "
            f"known: {', '.join(sorted((*known, *wrappers())))}",
        )
    )


def _without_type(config: dict[str, Any]) -> str:
    """What is wrong with a configuration that does not say which architecture it is of."""
    parts = config.get("components")
    if isinstance(parts, dict) and parts:
        named = ", ".join(sorted(map(str, parts)))
        return (
            f"is a pipeline of several models ({named}), which is not built yet; one of them can "
            "be given by its own hf_config"
        )
    return f"states no model_type, which says the architecture; {_instead(config)}"


def _instead(config: dict[str, Any]) -> str:
    """What could be given in place of a configuration that is not known."""
    inner = config.get("text_config")
    if isinstance(inner, dict) and model_type_of(inner) in families():
        return "its text_config alone can be given"
    return (
        "model.generic_block: true takes its sizes as a generic transformer, with a wide interval"
    )
