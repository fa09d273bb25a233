"""The half of a layer that works on each token alone: dense or sparse feed-forward networks."""

from __future__ import annotations

from sizewright_server.estimation.serving.config import Settings
from sizewright_server.estimation.serving.families import Family
from sizewright_server.estimation.serving.mixers import linear
from sizewright_server.estimation.serving.model import Experts, Role, Tensor


def dense(settings: Settings, family: Family, width: int | None = None) -> list[Tensor]:
    """Up (twice where it is gated) and down."""
    hidden = settings.size("hidden")
    inner = width or dense_width(settings, family, hidden)
    bias = family.flag("mlp_bias", settings)
    made: list[Tensor] = []
    for _ in range(2 if family.gated else 1):
        made += linear(inner, hidden, "width", bias, "linear")
    return [*made, *linear(hidden, inner, "width", bias, "linear")]


def dense_width(settings: Settings, family: Family, hidden: int) -> int:
    """The width of the dense network: stated, or the family's multiple of the hidden width."""
    stated = settings.optional(family.dense_width_key)
    if stated is None:
        stated = settings.optional("ffn")
    if stated is not None:
        return stated // family.ffn_divisor
    if family.ffn_multiple:
        return family.ffn_multiple * hidden
    return settings.size("ffn")


def experts_of(settings: Settings, family: Family) -> Experts | None:
    """The routed experts a configuration states; None for a dense model."""
    section = settings.section("ffn_config")
    count = settings.optional("experts") or section.get("moe_num_experts")
    if not count or not family.sparse:
        return None
    per_token = settings.optional("experts_per_token") or section.get("moe_top_k") or 1
    width = settings.optional("expert_ffn") or section.get("ffn_hidden_size")
    return Experts(int(count), int(per_token), int(width or settings.size("ffn")))


def sparse(settings: Settings, family: Family, experts: Experts) -> list[Tensor]:
    """A router, its experts, and the shared experts every token takes."""
    hidden = settings.size("hidden")
    made = [Tensor("router", experts.count, hidden)]
    if family.flag("router_bias", settings):
        role: Role = "vector" if family.flag("router_bias_counts", settings) else "buffer"
        made.append(Tensor(role, experts.count, itemsize=4))
    if family.flag("router_scales", settings):
        made.append(Tensor("vector", experts.count + hidden))
    halves = 2 if family.gated else 1
    inner = settings.optional("moe_latent_size") or hidden
    if inner != hidden:
        made += [Tensor("linear", inner, hidden), Tensor("linear", hidden, inner)]
    made += [
        Tensor("experts", experts.width, inner, halves * experts.count, "experts"),
        Tensor("experts", inner, experts.width, experts.count, "experts"),
    ]
    if family.flag("expert_bias", settings):
        rows = (halves * experts.width + inner) * experts.count
        made.append(Tensor("vector", rows, split="experts"))
    shared = shared_width(settings, family, experts)
    if shared:
        made += dense(settings, family, shared)
    if family.flag("shared_gate", settings):
        made.append(Tensor("router", 1, hidden))
    return made


#: Keys that state the width of the shared experts.
SHARED_WIDTHS = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
)


def shared_width(settings: Settings, family: Family, experts: Experts) -> int:
    """Width of all shared experts together."""
    for key in SHARED_WIDTHS:
        stated = settings.optional(key)
        if stated:
            return stated
    if family.shared_expert_key is None:
        return 0
    if family.shared_expert_key == "always":
        return experts.width
    return (settings.optional(family.shared_expert_key) or 0) * experts.width
