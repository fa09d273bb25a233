"""A training run's settings in the words of transformers' Trainer and of TRL.

The names are fields of `TrainingArguments`, and of TRL's `SFTConfig`, `DPOConfig` and
`ModelConfig`; `TrlParser` and `HfArgumentParser` read them from a file or a command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from sizewright_client.export.ledger import Ledger
from sizewright_client.export.selection import ExportError, Selection

#: In front of a setting that no argument says.
REMARK = "# not an argument, to be set in the training code:"
#: Our optimizers as `TrainingArguments.optim` names them.
OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw-8bit": "adamw_bnb_8bit",
    "adamw-4bit": "adamw_torch_4bit",
    "adamw-8bit-ao": "adamw_torch_8bit",
    "paged-adamw": "paged_adamw_32bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
    "adagrad": "adagrad",
    "rmsprop": "rmsprop",
    "rmsprop-8bit": "rmsprop_bnb_8bit",
    "lion-8bit": "lion_8bit",
    "paged-lion": "paged_lion_32bit",
    "paged-lion-8bit": "paged_lion_8bit",
    "galore-adamw": "galore_adamw",
    "galore-adamw-8bit": "galore_adamw_8bit",
    "galore-adafactor": "galore_adafactor",
    "apollo-adamw": "apollo_adamw",
    "lomo": "lomo",
    "adalomo": "adalomo",
    "schedule-free-adamw": "schedule_free_adamw",
    "stable-adamw": "stable_adamw",
}
PROJECTED = ("galore-adamw", "galore-adamw-8bit", "galore-adafactor", "apollo-adamw")
#: Precisions: type of the weights, and the switches of autocast.
PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {"dtype": "float32", "bf16": False},
    "tf32": {"dtype": "float32", "bf16": False, "tf32": True},
    "bf16-mixed": {"dtype": "float32", "bf16": True},
    "fp16-mixed": {"dtype": "float32", "bf16": False, "fp16": True},
    "bf16": {"dtype": "bfloat16", "bf16": False},
    "fp16": {"dtype": "float16", "bf16": False},
}
ATTENTION = {"": "sdpa", "eager": "eager", "sdpa": "sdpa", "flash-attention-2": "flash_attention_2"}
#: Kernels that Liger has, by our setting and value.
LIGER = {
    ("loss", "fused-fp32"): "cross_entropy",
    ("loss", "fused-linear"): "fused_linear_cross_entropy",
    ("norm", "fused"): "rms_norm",
    ("mlp", "fused"): "swiglu",
    ("rope", "fused"): "rope",
}
#: Formats of frozen weights that transformers makes as it loads: the options that ask for them.
LOADED_AS: dict[str, dict[str, Any]] = {
    "fp32": {"dtype": "float32"},
    "bf16": {"dtype": "bfloat16"},
    "fp16": {"dtype": "float16"},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "int8": {"load_in_8bit": True},
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
}
#: TRL's scripts for preference tuning.
SCRIPTS = {"": "sft", "dpo": "dpo", "kto": "kto"}


@dataclass(frozen=True, slots=True)
class TrainerWords:
    """Arguments of the training script, and what it must do that no argument says."""

    script: str
    values: dict[str, Any]
    environment: dict[str, str]
    left: tuple[str, ...]


def trainer(selection: Selection) -> str:
    """The run's settings as a file for `trl sft --config` or `HfArgumentParser`."""
    words = trainer_words(selection)
    head = [f"# trl {words.script} --config THIS_FILE"]
    head += [f"# with {name}={value}" for name, value in words.environment.items()]
    head += remarks(words)
    text: str = yaml.safe_dump(words.values, sort_keys=False)
    return "\n".join([*head, text])


def remarks(words: TrainerWords) -> list[str]:
    """A comment for what the training code is, and for each setting that it must make itself."""
    tunes = [f"# train.py trains with {words.script}"] if words.script != "sft" else []
    return [*tunes, *(f"{REMARK} {one}" for one in words.left)]


def trainer_words(selection: Selection, *, wrapped: bool = False) -> TrainerWords:
    """The settings of a training run. `wrapped`: blocks are checkpointed by what shards them.

    Raises ExportError for a run that transformers does not train.
    """
    work = selection.workload
    check_training(selection)
    run = Ledger("training", work.training)
    run.describes("parallelism", "padded_batches", "variable_lengths", "seq_len_is_limit")
    run.describes("training_loop", "modeling_code")
    values: dict[str, Any] = {"model_name_or_path": selection.model_name}
    values |= _precision(run) | _batch(run)
    values |= _checkpointing(run, wrapped=wrapped) | _kernels(run) | _optimizer(run)
    values |= _adapter(run) | _frozen(run)
    script = _script(run, values)
    host, data = _host(selection, values), _dataset(selection, values)
    environment = {}
    if run.take("expandable_segments"):
        environment["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    left = (*run.left(), *host.left(), *data)
    return TrainerWords(script, values, environment, left)


def check_training(selection: Selection) -> None:
    """Raises ExportError for what transformers does not train."""
    work = selection.workload
    if work.WhichOneof("run") != "training":
        raise ExportError("this form starts a training run; the workload does not train")
    if work.framework not in ("", "pytorch"):
        raise ExportError(f"this form starts PyTorch; the workload trains with {work.framework}")
    code = work.training.modeling_code
    if code not in ("", "transformers"):
        raise ExportError(
            f"training.modeling_code is {code}, whose own scripts start it; this form has the "
            "arguments of transformers"
        )


def _precision(run: Ledger) -> dict[str, Any]:
    if run.take("precision") in PRECISIONS:
        return dict(PRECISIONS[run.take("precision")])
    raise ExportError(
        f"training.precision is {run.take('precision')}, for which transformers' Trainer has no "
        f"argument; it has {', '.join(PRECISIONS)}"
    )


def _batch(run: Ledger) -> dict[str, Any]:
    made = {
        "per_device_train_batch_size": run.take("micro_batch"),
        "gradient_accumulation_steps": max(run.take("gradient_accumulation_steps"), 1),
    }
    if run.take("seq_len"):
        made["max_length"] = run.take("seq_len")
    if run.take("packed"):
        made["packing"] = True
    return made


def _checkpointing(run: Ledger, *, wrapped: bool) -> dict[str, Any]:
    asked = run.take("activation_checkpointing")
    made: dict[str, Any] = {"gradient_checkpointing": asked == "full" and not wrapped}
    if asked == "full" and run.take("checkpoint_policy.offload"):
        made["activation_offloading"] = True
    if asked == "selective":
        raise ExportError(
            "training.activation_checkpointing is selective, which neither Trainer nor accelerate "
            "has; set it to full or none, or write the policy into training code of your own"
        )
    return made


def _kernels(run: Ledger) -> dict[str, Any]:
    made: dict[str, Any] = {"attn_implementation": ATTENTION[run.take("attention")]}
    if run.peek("kernels.loss") == "full":
        run.take("kernels.loss")
    liger = {}
    for (kernel, value), name in LIGER.items():
        if run.peek(f"kernels.{kernel}") == value:
            run.take(f"kernels.{kernel}")
            liger[name] = True
    if liger:
        wanted = {name: liger.get(name, False) for name in LIGER.values()}
        made |= {"use_liger_kernel": True, "liger_kernel_config": wanted}
    if run.peek("kernels.compile") in ("model", "none"):
        made["torch_compile"] = run.take("kernels.compile") == "model"
    return made


def _optimizer(run: Ledger) -> dict[str, Any]:
    name = run.peek("optimizer.name")
    if name not in OPTIMIZERS:
        raise ExportError(
            f"training.optimizer.name is {name}, for which transformers' Trainer has no name; it "
            f"has {', '.join(OPTIMIZERS)}"
        )
    made: dict[str, Any] = {"optim": OPTIMIZERS[run.take("optimizer.name")]}
    step = run.peek("optimizer.step")
    if name == "adamw" and step == "fused":
        made["optim"] = "adamw_torch_fused"
    if step == "foreach" or (name == "adamw" and step == "fused"):
        run.take("optimizer.step")
    if name in PROJECTED:
        made["optim_args"] = f"rank={run.take('optimizer.rank') or 128}"
        made["optim_target_modules"] = "all-linear"
    return made


def _adapter(run: Ledger) -> dict[str, Any]:
    method = run.peek("adapter.method")
    if not method:
        return {}
    if method not in ADAPTERS:
        raise ExportError(
            f"training.adapter.method is {method}, which TRL's arguments do not name; they name "
            f"{', '.join(ADAPTERS)}"
        )
    made: dict[str, Any] = {"use_peft": True, **ADAPTERS[run.take("adapter.method")]}
    made["lora_r"] = run.take("adapter.rank") or 8
    made["lora_dropout"] = run.take("adapter.dropout")
    if run.states("adapter.targets"):
        made["lora_target_modules"] = run.take("adapter.targets")
    if run.peek("adapter.dtype") == "fp32":
        run.take("adapter.dtype")
    return made


def _frozen(run: Ledger) -> dict[str, Any]:
    """How the weights under an adapter are loaded."""
    stored = run.peek("base_weights.format")
    if not stored:
        return {}
    if stored not in LOADED_AS:
        raise ExportError(
            f"training.base_weights.format is {stored}, which is not made as a model loads: train "
            f"from a checkpoint stored so, or use {', '.join(LOADED_AS)}"
        )
    made = dict(LOADED_AS[run.take("base_weights.format")])
    if run.take("base_weights.double_quantization"):
        made["use_bnb_nested_quant"] = True
    # TRL prepares a quantised model for training itself, which keeps the rest in fp32.
    run.describes("base_weights.upcast_others")
    return made


def _script(run: Ledger, values: dict[str, Any]) -> str:
    method = run.peek("preference.method")
    if method not in SCRIPTS:
        raise ExportError(
            f"training.preference.method is {method}, for which TRL has no script; it has "
            f"{', '.join(name for name in SCRIPTS if name)}"
        )
    run.describes("preference.method")
    reference = run.peek("preference.reference")
    if reference == "precomputed":
        values["precompute_ref_log_probs"] = True
    # With an adapter TRL switches it off, without one it keeps a second model.
    own = "adapter-off" if run.peek("adapter.method") else "model"
    if reference in ("precomputed", own):
        run.describes("preference.reference")
    return SCRIPTS[method]


def _host(selection: Selection, values: dict[str, Any]) -> Ledger:
    host = Ledger("host", selection.workload.host)
    values["dataloader_num_workers"] = host.take("loader_workers")
    if host.take("prefetch_factor") and host.peek("loader_workers"):
        values["dataloader_prefetch_factor"] = host.peek("prefetch_factor")
    values["dataloader_pin_memory"] = host.take("pin_memory")
    if host.take("worker_start"):
        values["dataloader_multiprocessing_context"] = host.peek("worker_start")
    saved = host.peek("checkpoint_save")
    if saved in ("none", "full-weights", "full", "sharded"):
        host.take("checkpoint_save")
    if saved == "none":
        values["save_strategy"] = "no"
    if saved == "full-weights":
        values["save_only_model"] = True
    if host.peek("checkpoint_load") == "safetensors":
        host.take("checkpoint_load")
    host.describes("kubernetes", "notebook", "container_limit_bytes", "shared_memory_bytes")
    host.describes("other_processes_bytes")
    return host


def _dataset(selection: Selection, values: dict[str, Any]) -> list[str]:
    """How the data is held, where an argument says it or must not be forgotten."""
    container = selection.workload.dataset.container
    if container == "streaming":
        values["dataset_streaming"] = True
    if container in ("", "memory-mapped", "streaming"):
        return []
    return [f"dataset.container: {container}"]
