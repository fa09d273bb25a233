"""Small PyTorch networks by kind, and a batch for each."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn


def build(model: dict[str, Any]) -> nn.Module:
    """The network of a workload's `model`. Raises KeyError for a kind that is not known."""
    return KINDS[model["arch"]](model)


def batch_of(model: dict[str, Any], batch: int) -> tuple[Any, torch.Tensor]:
    """Inputs and class labels."""
    kind = model["arch"]
    labels = torch.randint(0, model.get("out", 2), (batch,))
    if kind == "mlp":
        return torch.randn(batch, model["in"]), labels
    if kind == "cnn":
        side = model["image"]
        return torch.randn(batch, 3, side, side), labels
    if kind == "lstm" or kind == "gru":
        return torch.randn(batch, model["seq"], model["in"]), labels
    if kind == "transformer":
        return torch.randn(batch, model["seq"], model["d_model"]), labels
    tokens = torch.randint(0, model["config"]["vocab_size"], (batch, model["seq"]))
    return tokens, tokens


def _mlp(model: dict[str, Any]) -> nn.Module:
    widths = [model["in"], *model["hidden"]]
    layers: list[nn.Module] = []
    for wide, next_wide in pairwise(widths):
        layers += [nn.Linear(wide, next_wide), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], model["out"]))


def _cnn(model: dict[str, Any]) -> nn.Module:
    channels = [3, *model["channels"]]
    layers: list[nn.Module] = []
    for inner, outer in pairwise(channels):
        layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], model["out"])
    )


class _Recurrent(nn.Module):
    def __init__(self, model: dict[str, Any], kind: Any) -> None:
        super().__init__()
        self.body = kind(model["in"], model["hidden"], model["layers"], batch_first=True)
        self.head = nn.Linear(model["hidden"], model["out"])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(inputs)[0][:, -1])


class _Encoder(nn.Module):
    def __init__(self, model: dict[str, Any]) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            model["d_model"], model["heads"], model["ffn"], batch_first=True
        )
        self.body = nn.TransformerEncoder(layer, model["layers"])
        self.head = nn.Linear(model["d_model"], model["out"])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(inputs).mean(1))


def _hf(model: dict[str, Any]) -> nn.Module:
    import transformers

    config = dict(model["config"])
    made = getattr(transformers, config.pop("class"))(**config)
    kind = (
        transformers.AutoModelForMaskedLM
        if "Bert" in model["config"]["class"]
        else transformers.AutoModelForCausalLM
    )
    return kind.from_config(made)


KINDS: dict[str, Any] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "lstm": lambda model: _Recurrent(model, nn.LSTM),
    "gru": lambda model: _Recurrent(model, nn.GRU),
    "transformer": _Encoder,
    "hf": _hf,
}
