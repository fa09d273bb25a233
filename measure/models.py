"""Builds the model of a workload on the fake GPU."""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable
from typing import Any
from unittest import mock

# isort: split
import cuda_guard  # noqa: F401  (before torch)

# isort: split
import torch
import torch.nn.functional
import transformers

from fake_cuda import DTYPES

HEADS = (
    ("encoder-decoder", transformers.AutoModelForSeq2SeqLM),
    ("llm", transformers.AutoModelForCausalLM),
    ("moe", transformers.AutoModelForCausalLM),
    ("encoder", transformers.AutoModelForMaskedLM),
    ("vision", transformers.AutoModelForImageClassification),
    ("vlm", transformers.AutoModelForImageTextToText),
)
IGNORED_CONFIG_KEYS = {"class", "model_type"}


def model_config(workload: dict[str, Any]) -> Any:
    """The transformers configuration named by ``model_config.class``."""
    stated = workload.get("model_config") or {}
    name = stated.get("class")
    if not name:
        raise ValueError(
            "model_config.class: name a transformers configuration class, such as LlamaConfig"
        )
    if not hasattr(transformers, name):
        raise ValueError(f"model_config.class: transformers has no {name}")
    values = {key: value for key, value in stated.items() if key not in IGNORED_CONFIG_KEYS}
    return getattr(transformers, name)(**values)


def head_class(workload: dict[str, Any], config: Any) -> Any:
    """The auto class of the task head: the pretraining head of the model's kind unless ``head``
    says otherwise.
    """
    head = workload.get("head")
    if head == "seqcls":
        return transformers.AutoModelForSequenceClassification
    if head is not None:
        raise ValueError(
            f"head: {head!r} is unknown; say seqcls or leave it out for the pretraining head"
        )
    for category, auto in HEADS:
        stated = workload.get("category")
        if type(config) in auto._model_mapping and stated in (None, category):
            return auto
    raise ValueError(f"model_config.class: no pretraining head for {type(config).__name__}")


class Classifier(torch.nn.Module):
    """A torchvision network with the interface of a transformers image classifier."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.config = types.SimpleNamespace(num_channels=3, image_size=224)

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None
    ) -> types.SimpleNamespace:
        """Logits, and the loss when there are labels."""
        logits = self.network(pixel_values)
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return types.SimpleNamespace(logits=logits, loss=loss)


def torchvision_model(name: str) -> torch.nn.Module:
    """A torchvision classifier by its name, whether or not torchvision's own operators load."""
    # Wheels built for another torch variant bring no compiled operators, and importing them then
    # fails on this one, which no classifier uses.
    signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", signature)
    network: torch.nn.Module = importlib.import_module("torchvision.models").get_model(name)
    return network


def bare_model(workload: dict[str, Any]) -> Any:
    """The network with its head, without adapters, in the workload's parameter type."""
    dtype = DTYPES[workload["param_dtype"]]
    name = (workload.get("model_config") or {}).get("torchvision")
    if name:
        return Classifier(torchvision_model(name)).to(dtype)
    config = model_config(workload)
    options: dict[str, Any] = {"dtype": dtype}
    if workload.get("attn"):
        options["attn_implementation"] = workload["attn"]
    model = head_class(workload, config).from_config(config, **options)
    # Loading a checkpoint casts parameters to which the code gives a type of their own as well.
    if workload.get("cast"):
        model = model.to(dtype)
        model.tie_weights()
    return model


def build_model(workload: dict[str, Any]) -> torch.nn.Module:
    """The model with its adapters, on the fake GPU, in the workload's parameter type."""
    # Moving a module swaps its fake parameters in place, which fake tensors refuse.
    with torch.device("cuda"), mock.patch.object(torch.nn.Module, "_apply", replace_parameters):
        model = bare_model(workload)
        if workload.get("channels_last"):
            model = model.to(memory_format=torch.channels_last)
    lora = workload.get("lora")
    if lora:
        model = with_adapters(model, lora)
    if workload.get("grad_ckpt"):
        model.gradient_checkpointing_enable()
    training = workload["mode"] == "train"
    if training and hasattr(model.config, "use_cache"):
        # A training loop that leaves the cache on keeps every key and value for nothing.
        model.config.use_cache = False
    model.train(training)
    if lora and lora.get("method") in DRAWN_METHODS:
        always_adapt(model)
    return model


#: The peft configuration class of each method of a row's ``lora``.
ADAPTER_CONFIGS = {
    "lora": "LoraConfig",
    "adalora": "AdaLoraConfig",
    "vera": "VeraConfig",
    "loha": "LoHaConfig",
    "lokr": "LoKrConfig",
    "boft": "BOFTConfig",
    "oft": "OFTConfig",
    "ia3": "IA3Config",
    "ln_tuning": "LNTuningConfig",
    "prompt_tuning": "PromptTuningConfig",
    "prefix_tuning": "PrefixTuningConfig",
    "p_tuning": "PromptEncoderConfig",
}


#: Methods that draw in each pass whether a layer is adapted at all.
DRAWN_METHODS = ("loha", "lokr")


def always_adapt(model: torch.nn.Module) -> None:
    """Adapts in every pass: a number drawn has no value here, and without `module_dropout` every
    number would do.
    """
    layers = importlib.import_module("peft.tuners.lycoris_utils").LycorisLayer
    for module in model.modules():
        if isinstance(module, layers):
            module.training = False


def with_adapters(model: torch.nn.Module, lora: dict[str, Any]) -> torch.nn.Module:
    """The model with adapters of the ``lora`` row: LoRA on the modules it names, or any method of
    ``ADAPTER_CONFIGS`` with the configuration's own ``options``.
    """
    peft = importlib.import_module("peft")
    method = lora.get("method", "lora")
    options = dict(lora.get("options", {}))
    if method == "lora":
        # Any dropout but zero costs the same: one mask for each adapted layer.
        options |= {"r": lora["r"], "lora_dropout": lora.get("dropout", 0.05)}
    if lora.get("targets"):
        names = list(lora["targets"])
        options["target_modules"] = "all-linear" if names == ["all-linear"] else names
    if method not in ("lora", "ia3", "ln_tuning"):
        options["task_type"] = "CAUSAL_LM"
    adapters = getattr(peft, ADAPTER_CONFIGS[method])(**options)
    with (
        mock.patch.object(torch.nn.Module, "_apply", replace_parameters),
        mock.patch.object(torch.Tensor, "__deepcopy__", copied),
    ):
        adapted: torch.nn.Module = peft.get_peft_model(model, adapters)
    return adapted


def copied(tensor: torch.Tensor, _memo: dict[int, Any]) -> torch.Tensor:
    """A deep copy, which torch makes by the address of the data: fake tensors have none."""
    clone = tensor.detach().clone()
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(clone, tensor.requires_grad)
    return clone


def replace_parameters(
    module: torch.nn.Module, convert: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True
) -> torch.nn.Module:
    """``Module._apply`` that puts new parameters where the old ones were."""
    for child in module.children() if recurse else ():
        replace_parameters(child, convert)
    for name, old in module._parameters.items():
        if old is not None:
            module._parameters[name] = torch.nn.Parameter(convert(old.detach()), old.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = convert(buffer)
    return module
