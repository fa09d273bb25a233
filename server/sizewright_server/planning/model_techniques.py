"""A smaller model in place of the one asked for: another size of its family, fewer layers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from sizewright_server.estimation.preparation import AnyWorkload
from sizewright_server.estimation.presets import Preset, find_preset, preset_names
from sizewright_server.estimation.serving.run import ServingWorkload
from sizewright_server.estimation.workload import ModelSource, Workload
from sizewright_server.planning.changes import Change, Form, Rule

#: A smaller size has at most this share of the parameters; nearer ones change little.
SMALLER = 0.67
#: What of a name says the size.
SIZE = re.compile(r"\b\d+(\.\d+)?[bm]\b|tiny|mini|small|base|medium|large|huge|giant|xl|xxl")
#: How configurations name the width and the number of blocks.
BLOCKS = ("hidden_size", "num_hidden_layers", "n_embd", "n_layer", "d_model", "dim", "n_layers")
FEWEST_LAYERS = 4
LAYERS = "num_hidden_layers"
#: Encoders that are known to keep most of their score with half of their layers.
PRUNED = ("bert", "roberta", "xlm-roberta", "electra", "deberta-v2", "vit", "deit", "beit")


@lru_cache(maxsize=1024)
def smaller_preset(name: str) -> str | None:
    """The next smaller size of a preset's family; None where it is the smallest.

    The family: the same publisher, architecture and task. Names that differ in the size alone come
    first, then the same vocabulary; of those the largest.
    """
    own = find_preset(name)
    publisher = f"{own.name.split('/')[0]}/"
    found = []
    for other in preset_names():
        if other.startswith(publisher) and other != own.name:
            preset = find_preset(other)
            if _of_family(preset, own) and preset.parameters <= SMALLER * own.parameters:
                named = SIZE.sub("", other.lower()) == SIZE.sub("", own.name.lower())
                spoken = preset.config.get("vocab_size") == own.config.get("vocab_size")
                found.append((not named, not spoken, -preset.parameters, other))
    return min(found)[3] if found else None


def _of_family(preset: Preset, own: Preset) -> bool:
    alike = preset.config.get("model_type") == own.config.get("model_type")
    # Of the same blocks with a smaller vocabulary: another language, not a smaller model.
    known = [key for key in BLOCKS if key in own.config]
    same = bool(known) and all(preset.config.get(key) == own.config[key] for key in known)
    return alike and preset.task == own.task and not same


def _smaller_model(workload: AnyWorkload) -> Iterator[Form]:
    source = _source(workload)
    if source is None or source.preset is None:
        return
    other = smaller_preset(source.preset)
    if other is not None:
        preset = find_preset(other)
        made = replace(source, config=preset.config, preset=preset.name)
        change = Change("workload.model.preset", source.preset, preset.name)
        yield _with_source(workload, made), (change,)


def _pruned(workload: AnyWorkload) -> Iterator[Form]:
    """Half the layers, where the configuration counts them in one number."""
    source = _source(workload)
    layers = None if source is None else source.config.get(LAYERS)
    if source is None or source.config.get("model_type") not in PRUNED:
        return
    if not isinstance(layers, int) or layers < FEWEST_LAYERS:
        return
    made = replace(source, config={**source.config, LAYERS: layers // 2}, preset=None)
    change = Change(f"workload.model.hf_config.{LAYERS}", str(layers), str(layers // 2))
    yield _with_source(workload, made), (change,)


def _source(workload: AnyWorkload) -> ModelSource | None:
    return workload.model if isinstance(workload, Workload | ServingWorkload) else None


def _with_source(workload: AnyWorkload, source: ModelSource) -> AnyWorkload:
    assert isinstance(workload, Workload | ServingWorkload)
    return replace(workload, model=source)


MODEL: dict[str, Rule] = {"smaller-model": _smaller_model, "pruned-model": _pruned}
