"""Whose memory an estimate is of, and why its peak is where it is: a sentence each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizewright_server.estimation.timeline import PhasePeak
from sizewright_server.estimation.training import TrainingGroup
from sizewright_server.estimation.workload import Layout

if TYPE_CHECKING:
    from sizewright_server.estimation.inference import InferenceGroup

#: Why a pipeline's stage can be the fullest.
FULLEST = {
    "first": "it has the embedding and the most micro-batches in flight",
    "second": "it has the most micro-batches in flight of those without the embedding",
    "last": "it has the head and its loss",
}
#: Why a step's peak can be in a phase.
REASONS = {
    "load": "weights are whole on the way to their shards, before any other state is made",
    "forward": "it ends with all that is saved for the backward pass",
    "loss": "the logits and what the loss makes of them stand on all that the blocks have saved",
    "optimizer-step": (
        "gradients and optimizer states are all there, and outweigh what the passes save"
    ),
}
#: The same of the backward pass, by how far it has come.
FIRST_BLOCK = (
    "all that the forward pass saved is still there, and the first block to run backward adds its"
    " gradients and temporaries"
)
LATER_BLOCK = "gradients have grown by more than the activations that were given back"


def scope_of(layout: Layout, group: TrainingGroup | InferenceGroup) -> str:
    """Whose memory it is, and of a pipeline why that stage is the fullest."""
    if layout.pp == 1 or not isinstance(group, TrainingGroup):
        return "every rank"
    stage = int(group.stage[group.shown])
    why = FULLEST[group.position]
    return f"ranks of pipeline stage {stage} of 0 to {layout.pp - 1}, the fullest: {why}"


def reason_of(group: TrainingGroup | InferenceGroup, peak: PhasePeak) -> str:
    """Why a training step is at its peak in that phase; nothing of inference."""
    if not isinstance(group, TrainingGroup):
        return ""
    if peak.phase != "backward":
        return REASONS.get(peak.phase, "")
    stage = group.all_stages[int(peak.stage[group.shown])]
    later = bool(peak.at_last[group.shown]) and int(stage.count[group.shown]) > 1
    return LATER_BLOCK if later else FIRST_BLOCK
