"""Traces layers of sizes of their own: ``trace_block_configs.py ROWS.jsonl OUT.jsonl``.

A row's ``model_config`` has ``block_configs`` as Nemotron-NAS publishes them: query heads that
share a key, and a multiple of the hidden width. A layer lacks what is a ``no_op``, and its norm.
"""

from __future__ import annotations

import copy
import sys
from typing import Any
from unittest import mock

# isort: split
import cuda_guard  # noqa: F401  (before torch)

# isort: split
import torch
from transformers.models.llama import modeling_llama

import models
from trace_rows import rows_parser, trace_all

#: Widths of the gated network are rounded up to it.
WIDTH_STEP = 256


class OwnLayer(modeling_llama.LlamaDecoderLayer):  # type: ignore[misc]
    """A decoder layer of which either half may be missing."""

    def __init__(self, config: Any, index: int, block: dict[str, Any]) -> None:
        attention, network = block["attention"], block["ffn"]
        own = copy.deepcopy(config)
        own.num_key_value_heads = own.num_attention_heads // attention.get("n_heads_in_group", 1)
        width = int(2 * network.get("ffn_mult", 1) * own.hidden_size / 3)
        own.intermediate_size = -(-width // WIDTH_STEP) * WIDTH_STEP
        super().__init__(own, index)
        self.attends, self.feeds = not attention.get("no_op"), not network.get("no_op")
        if not self.attends:
            del self.self_attn, self.input_layernorm
        if not self.feeds:
            del self.mlp, self.post_attention_layernorm

    def forward(self, hidden_states: torch.Tensor, **more: Any) -> torch.Tensor:
        """Each half that is there beside the residual, with names that live as Llama's do."""
        if self.attends:
            residual = hidden_states
            hidden_states = self.input_layernorm(hidden_states)
            hidden_states, _ = self.self_attn(hidden_states=hidden_states, **more)
            hidden_states = residual + hidden_states
        if self.feeds:
            residual = hidden_states
            hidden_states = self.post_attention_layernorm(hidden_states)
            hidden_states = self.mlp(hidden_states)
            hidden_states = residual + hidden_states
        return hidden_states


def with_own_layers(build: Any) -> Any:
    """A maker of models whose layers are as the row lists them."""

    def made(workload: dict[str, Any]) -> Any:
        stated = dict(workload["model_config"])
        blocks = stated.pop("block_configs")

        def layer(config: Any, index: int) -> OwnLayer:
            return OwnLayer(config, index, blocks[index])

        with mock.patch.object(modeling_llama, "LlamaDecoderLayer", layer):
            return build(workload | {"model_config": stated | {"class": "LlamaConfig"}})

    return made


def main() -> int:
    asked = rows_parser(__doc__).parse_args()
    with mock.patch.object(models, "bare_model", with_own_layers(models.bare_model)):
        return trace_all(asked)


if __name__ == "__main__":
    sys.exit(main())
