"""Checkpoints of several modalities, of which text alone trains.

The class that transformers loads has the whole checkpoint: the language model with its head, and a
vision tower with a projector, whose weights lie on the GPU. A step without images does not run
them, so that they take no gradients and no optimizer states.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sizewright_server.estimation.architecture import Architecture
from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.problems import UnsupportedWorkload, Violation
from sizewright_server.estimation.serving.config import Settings
from sizewright_server.estimation.serving.encoders import encoder_of
from sizewright_server.estimation.style import Style

#: Names of the section with the language model's own configuration.
TEXT_SECTIONS = ("text_config", "llm_config", "language_config")


@dataclass(frozen=True, slots=True)
class Wrapper:
    """An entry of `data/wrappers.json`."""

    text: str
    tower: str
    #: Whether the head is tied where the outer configuration does not say.
    tied: bool
    style: dict[str, Any]
    #: Whether transformers' inference is lowered as training is.
    infers: bool = False


def is_lowered(model_type: str | None, training: bool) -> bool:
    """Whether a run of that model_type is of a wrapper whose language model is lowered."""
    wrapper = wrappers().get(str(model_type))
    return wrapper is not None and (training or wrapper.infers)


@cache
def wrappers() -> dict[str, Wrapper]:
    """Every wrapper by model_type."""
    table: dict[str, dict[str, Any]] = data_of("sizewright_server.estimation", "wrappers")
    return {name: Wrapper(**entry) for name, entry in table.items() if not name.startswith("_")}


def text_config(config: dict[str, Any], name: str, known: frozenset[str]) -> dict[str, Any]:
    """The language model's configuration: its own section over the outer keys.

    Older files have no section, and the keys of the language model among the outer ones. Whether
    the head is tied is said outside, or is the wrapper's default.
    """
    outer = {key: value for key, value in config.items() if not key.endswith("_config")}
    section: dict[str, Any] = next(
        (config[key] for key in TEXT_SECTIONS if isinstance(config.get(key), dict)), {}
    )
    stated = str(section.get("model_type"))
    made = {**outer, **section, "model_type": stated if stated in known else wrappers()[name].text}
    tied = config.get("tie_word_embeddings")
    made["tie_word_embeddings"] = wrappers()[name].tied if tied is None else tied
    return made


def wrapped(text: Architecture, config: dict[str, Any], name: str, field: str) -> Architecture:
    """The language model as the wrapper of that model_type runs it.

    The tower's weights are beside its embedding.

    Raises UnsupportedWorkload for a vision_config without its sizes.
    """

    wrapper = wrappers()[name]

    def change(style: Style) -> Style:
        return replace(style, **wrapper.style)

    settings = Settings({"hidden_size": text.sizes.hidden}, {})
    tower = encoder_of(wrapper.tower, config, settings)
    if settings.problems or tower is None:
        raise UnsupportedWorkload(*(Violation(field, problem) for problem in settings.problems))
    unread = tuple((t.count, t.rows, t.columns) for t in tower.tensors if t.parameters)
    first, *rest = (replace(run, style=change(run.style)) for run in text.runs)
    first = replace(first, style=replace(first.style, unread_weights=unread))
    return replace(
        text,
        model_type=name,
        style=change(text.style),
        runs=(first, *rest),
        tower=wrapper.tower,
    )
