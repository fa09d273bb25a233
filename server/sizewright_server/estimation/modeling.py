"""Passes over an architecture before it is lowered: another library's code, and other kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

from sizewright_server.estimation.architecture import Architecture, Style
from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.techniques import Kernel, Kernels, LossKernel, TrainingLoop
from sizewright_server.estimation.workload import Inference, Training

#: Tokens and words of a tile of logits (trl/kernels/chunked_logprob.py, trl/trainer/utils.py).
TILE_TOKENS, TILE_WORDS = 4096, 32_768
#: Preference methods whose log-probabilities need no logits.
TILED_METHODS = ("dpo", "ipo", "kto")
#: litgpt takes the loss of this many tokens of each sample at a time (finetune/lora.py).
LITGPT_CHUNK_TOKENS = 128


@dataclass(frozen=True, slots=True)
class ModelingCode:
    """An entry of `data/modeling_codes.json`."""

    style: dict[str, Any]
    loss: LossKernel
    loop: TrainingLoop
    #: Families whose logits stay in their own type.
    native_losses: frozenset[str]
    #: The head has a table of its own, whatever the checkpoint ties.
    unties: bool


@cache
def modeling_code(name: str) -> ModelingCode:
    """A library's modelling code. Raises KeyError for a name that is not known."""
    entry = data_of("sizewright_server.estimation", "modeling_codes")[name]
    return ModelingCode(
        style=entry["style"],
        loss=entry["loss"],
        loop=entry["loop"],
        native_losses=frozenset(entry.get("native_losses", ())),
        unties=bool(entry.get("unties")),
    )


def restyle(architecture: Architecture, training: Training) -> Architecture:
    """The architecture as the run's code and kernels compute it."""
    parted = _parts_tables(architecture, training)
    return _restyled(architecture, training.modeling_code, training.kernels, parted)


def _parts_tables(architecture: Architecture, training: Training) -> bool:
    """Whether PEFT trains a copy of a table that embedding and head share."""
    adapter = training.adapter
    if adapter is None or not training.modeling_code.startswith("transformers"):
        return False
    tables = {"embeddings", "head"} & adapter.trained_modules
    return bool(tables) and architecture.head.shares_table


@lru_cache(maxsize=512)
def _restyled(
    architecture: Architecture, code_name: str, kernels: Kernels, parted: bool
) -> Architecture:
    code = modeling_code(code_name)
    if parted:
        head = replace(architecture.head, tied=False, parted=True)
        architecture = replace(architecture, head=head)
    if architecture.model_type in code.native_losses:
        head = replace(architecture.head, upcast_logits=False)
        architecture = replace(architecture, head=head)
    if code.unties:
        architecture = replace(architecture, head=replace(architecture.head, tied=False))
    if not code.style and kernels == Kernels():
        return architecture

    def change(style: Style) -> Style:
        return _with_kernels(replace(style, **code.style), kernels)

    runs = tuple(replace(run, style=change(run.style)) for run in architecture.runs)
    return replace(architecture, style=change(architecture.style), runs=runs)


def in_operators(architecture: Architecture, recurrence: Kernel | None) -> Architecture:
    """The architecture with its recurrent layers in torch's operators, where `recurrence` is."""
    if recurrence != "eager" or not architecture.recurrent:
        return architecture

    def change(style: Style) -> Style:
        return replace(style, fused_recurrence=False)

    runs = tuple(replace(run, style=change(run.style)) for run in architecture.runs)
    return replace(architecture, style=change(architecture.style), runs=runs)


def _with_kernels(style: Style, kernels: Kernels) -> Style:
    """Fused kernels in the place of the family's own operators; torch.compile fuses all three."""
    compiled = kernels.compile != "none"
    if kernels.norm == "fused" or (compiled and kernels.norm is None):
        style = replace(style, fused_norm=True)
    if kernels.mlp == "fused" or (compiled and kernels.mlp is None):
        style = replace(style, fused_mlp=True)
    if kernels.rope == "fused" or (compiled and kernels.rope is None):
        style = replace(style, fused_rope=True)
    if kernels.rope == "fused" and not style.latent:
        # Turned where they are, queries stay laid out token by token.
        style = replace(style, heads_first=False)
    if kernels.recurrence == "eager":
        style = replace(style, fused_recurrence=False)
    return replace(style, kernels_in_place=not compiled)


def loss_chunk_tokens(training: Training, hidden: int, vocab: int) -> int:
    """Tokens whose logits are live at once, for the losses that work in chunks.

    Liger's rule: as many chunks as the vocabulary is wider than the hidden states, each a power of
    two (ops/fused_linear_cross_entropy.py).
    """
    tokens = training.rows * training.seq_len
    if training.kernels.loss_chunk_tokens:
        return min(tokens, training.kernels.loss_chunk_tokens)
    if training.modeling_code == "litgpt":
        return min(tokens, training.rows * LITGPT_CHUNK_TOKENS)
    if loss_kernel(training) == "tiled":
        return min(tokens, TILE_TOKENS)
    if loss_kernel(training) == "fused-linear":
        chunks = -(-vocab // hidden)
        return min(tokens, 1 << (max(1, -(-tokens // chunks)) - 1).bit_length())
    return -(-tokens // 8)


def loss_kernel(training: Training) -> LossKernel:
    """The kernel asked for, or the modelling code's own.

    trl 1.16 takes the log-probabilities of DPO, IPO and KTO by tiles; the methods that need the
    logits take them in their own type (selective_log_softmax), as its older releases did for all. A
    model compiled as a whole has its loss compiled with it.
    """
    if training.kernels.loss is not None:
        return training.kernels.loss
    own = modeling_code(training.modeling_code).loss
    if training.preference is not None:
        if training.modeling_code == "transformers" and training.preference.method in TILED_METHODS:
            return "tiled"
        # Where the model's own logits are fp32, so are their log-probabilities.
        return own if own == "shifted" else "native"
    if training.kernels.compile == "model":
        return "compiled"
    return own


def trl_not_stated(run: Training | Inference) -> bool:
    """Whether the log-probabilities' memory depends on trl's release, which no loss says."""
    if not isinstance(run, Training) or run.preference is None or run.kernels.loss is not None:
        return False
    return loss_kernel(run) == "tiled"


def training_loop(training: Training) -> TrainingLoop:
    """The loop asked for, or the one the modelling code's recipes run in."""
    return training.loop or modeling_code(training.modeling_code).loop
