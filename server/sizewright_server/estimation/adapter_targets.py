"""What people call the linear layers and modules of a model, and a method's defaults."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from sizewright_server.estimation.data_files import data_of

#: Methods whose rank means something, and those that count virtual tokens.
PROMPT_METHODS = ("prompt-tuning", "prefix-tuning", "p-tuning")


#: How modules of each half of a block are called, and the layers that they have.
HALVES = {
    "attn": {"q", "k", "v", "qkv", "o", "attention-out"},
    "attention": {"q", "k", "v", "qkv", "o", "attention-out"},
    "mlp": {"gate", "up", "gate-up", "down"},
    "feed_forward": {"gate", "up", "gate-up", "down"},
}


class UnknownTarget(KeyError):
    """A name that is no known linear layer or module; `known` are those that are."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(name)
        self.name = name
        self.known = tuple(known)


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = data_of("sizewright_server.estimation", "adapters")
    return table


def adapter_targets(names: Iterable[str], method: str) -> frozenset[str]:
    """The layers that `names` mean; without names those PEFT adapts by default.

    Raises UnknownTarget.
    """
    table, found = _table(), set[str]()
    stated = [name for name in names if name]
    if method in PROMPT_METHODS or method in ("layernorm-tuning", "adaption-prompt"):
        return frozenset()
    if method == "adapter-v2":
        return frozenset((*table["all_linear"], "head"))
    if not stated:
        return frozenset(table["default_targets"]["ia3" if method == "ia3" else "lora"])
    for name in stated:
        if name in table["all_linear_words"]:
            found |= set(table["all_linear"])
        elif name.rsplit(".", 1)[-1] in table["targets"]:
            found |= _of_half(name, set(table["targets"][name.rsplit(".", 1)[-1]]))
        else:
            raise UnknownTarget(name, (*table["targets"], "all-linear"))
    return frozenset(found)


def _of_half(name: str, layers: set[str]) -> set[str]:
    """Of the layers that a name's end means those in the half of a block that it begins with:
    `mlp.c_proj` is not attention's."""
    before = name.rpartition(".")[0].rpartition(".")[2]
    for half, kinds in HALVES.items():
        if half in before:
            return layers & kinds
    return layers


def trained_modules(names: Iterable[str], method: str) -> frozenset[str]:
    """The modules ("embeddings", "head", "norms") that `names` mean. Raises UnknownTarget."""
    modules = _table()["modules"]
    for name in names:
        if name not in modules:
            raise UnknownTarget(name, modules)
    found = {modules[name] for name in names}
    return frozenset(found | ({"norms"} if method in ("layernorm-tuning", "adapter-v2") else set()))


def default_rank(method: str) -> int:
    """PEFT's default rank (or block size) of a method; 1 for methods without one."""
    return int(_table()["default_ranks"].get(method, 1))
