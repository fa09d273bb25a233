"""Nemotron-NAS: every layer has key/value heads and a width of its own, or lacks either half.

The count of parameters is that of the published weights: 99,734,290,432 bytes of bf16.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sizewright_server.estimation.block_configs import ffn_width
from sizewright_server.estimation.frontend import read_architecture
from sizewright_server.estimation.presets import find_preset
from sizewright_server.estimation.problems import UnsupportedWorkload
from sizewright_server.estimation.serving.reading import read_served_model
from sizewright_server.estimation.workload import ModelSource

NAME = "nvidia/Llama-3_3-Nemotron-Super-49B-v1"
PARAMETERS = 49_867_145_216


def whole(group: int = 4, multiple: float = 1.5) -> dict[str, Any]:
    return {"attention": {"n_heads_in_group": group}, "ffn": {"ffn_mult": multiple}}


def small(*blocks: dict[str, Any]) -> dict[str, Any]:
    sizes = {"hidden_size": 512, "num_attention_heads": 8, "vocab_size": 1000}
    layers = {"num_hidden_layers": len(blocks), "block_configs": list(blocks)}
    return {"model_type": "nemotron-nas", "torch_dtype": "bfloat16", **sizes, **layers}


def wrong_in_both_readers(config: dict[str, Any]) -> set[str]:
    found = set()
    for read in (
        lambda: read_architecture(ModelSource(config), "model"),
        lambda: read_served_model(config, "model"),
    ):
        with pytest.raises(UnsupportedWorkload) as refused:
            read()
        found.add(str(refused.value))
    return found


def test_the_published_model_has_its_published_parameters_when_served() -> None:
    assert read_served_model(find_preset(NAME).config, "model").parameters == PARAMETERS


def test_keys_and_values_are_cached_in_the_49_layers_with_attention_alone() -> None:
    caches = read_served_model(find_preset(NAME).config, "model").caches

    assert len(caches) == 80
    assert sum(cache.kind == "full" for cache in caches) == 49
    assert {(c.kv_heads, c.key_dim) for c in caches if c.kind == "full"} == {(8, 128)}


def test_widths_are_two_thirds_of_the_multiple_rounded_up_to_256() -> None:
    # int(2 x 1.0 x 8192 / 3) = 5461, and 5.25 is Llama 3.3's own 28,672.
    assert ffn_width(1.0, 8192) == 5632
    assert ffn_width(5.25, 8192) == 28_672


def test_layers_of_llamas_own_sizes_are_llama() -> None:
    config = small(whole(), whole())
    llama = {**config, "model_type": "llama", "num_key_value_heads": 2, "intermediate_size": 512}
    del llama["block_configs"]
    ours, theirs = (read_architecture(ModelSource(c), "model") for c in (config, llama))

    assert (ours.style, ours.sizes, ours.head) == (theirs.style, theirs.sizes, theirs.head)
    assert [run.count for run in ours.runs] == [run.count for run in theirs.runs]
    assert ours.runs[1].style == theirs.runs[1].style
    assert ours.runs[1].sizes == theirs.runs[1].sizes


def test_a_layer_may_lack_attention_a_network_or_both() -> None:
    no_op: dict[str, Any] = {"no_op": True}
    bare: list[dict[str, Any]] = [
        {"attention": no_op, "ffn": {"ffn_mult": 3.0}},
        {"attention": {"n_heads_in_group": 8}, "ffn": no_op},
        {"attention": no_op, "ffn": no_op},
    ]
    served = read_served_model(small(whole(), *bare), "model")

    full = 2 * 512 * 512 + 2 * 512 * 128 + 3 * 512 * 512 + 2 * 512
    network = 3 * 512 * 1024 + 512
    attention = 2 * 512 * 512 + 2 * 512 * 64 + 512
    assert [served.layers[kind].parameters for kind in served.order] == [
        full,
        network,
        attention,
        0,
    ]
    assert [cache.kv_heads for cache in served.caches] == [2, 0, 1, 0]


@pytest.mark.parametrize(
    ("half", "key", "value", "told"),
    [
        ("attention", "n_heads_in_group", 3, "n_heads_in_group must be a divisor"),
        ("attention", "n_heads_in_group", None, "n_heads_in_group must be a divisor"),
        ("attention", "no_op", "yes", "no_op must be true or false"),
        ("attention", "replace_with_linear", True, "replace_with_linear is not supported"),
        ("ffn", "ffn_mult", -1, "ffn_mult must be above 0"),
        ("ffn", "ffn_mult", float("nan"), "ffn_mult must be above 0"),
        ("ffn", "replace_with_linear", True, "replace_with_linear is not supported"),
    ],
)
def test_a_wrong_block_is_refused_by_the_name_of_its_field(
    half: str, key: str, value: Any, told: str
) -> None:
    config = copy.deepcopy(small(whole(), whole()))
    config["block_configs"][1][half][key] = value

    (text,) = wrong_in_both_readers(config)
    assert f"block_configs[1].{half}.{told}" in text


def test_every_wrong_block_is_named_at_once() -> None:
    (text,) = wrong_in_both_readers(small(whole(group=3), whole(multiple=0)))

    assert "block_configs[0].attention.n_heads_in_group" in text
    assert "block_configs[1].ffn.ffn_mult" in text


@pytest.mark.parametrize("stated", [None, [], "all", [whole()], [whole(), 7]])
def test_a_list_that_does_not_fit_the_layers_is_refused(stated: Any) -> None:
    (text,) = wrong_in_both_readers({**small(whole(), whole()), "block_configs": stated})

    assert "block_configs" in text
