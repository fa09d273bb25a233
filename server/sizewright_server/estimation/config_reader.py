"""Reads one Hugging Face configuration against its family's entry in `data/families.json`."""

from __future__ import annotations

from typing import Any

from sizewright_server.estimation.architecture import HeadStyle, Sizes, Style
from sizewright_server.estimation.config_sizes import ConfigSizes
from sizewright_server.estimation.workload import ModelSource

#: Activations by what they save and how they are computed (transformers/activations.py).
ACTIVATIONS: dict[str, dict[str, str]] = {
    "silu": {"activation": "silu"},
    "swish": {"activation": "silu"},
    "gelu": {},
    "gelu_pytorch_tanh": {},
    "gelu_python_tanh": {"activation": "gelu-new"},
    "gelu_fast": {"activation": "gelu-fast"},
    "gelu_new": {"activation": "gelu-new"},
    "quick_gelu": {"activation": "quick-gelu"},
    "relu": {"activation_saves": "output"},
    "relu2": {"activation": "relu-squared"},
    "tanh": {"activation_saves": "output"},
    "bloom": {"activation": "bloom"},
}


class ConfigReader(ConfigSizes):
    """Reads one configuration against its family, sizes and wiring; collects what is wrong."""

    def style(self, sizes: Sizes) -> Style:
        """The wiring: the family's, bent by the configuration's switches."""
        fields: dict[str, Any] = dict(self.family["style"])
        for name, key in self.family.get("from_config", {}).items():
            if self._at(key) is not None:
                fields[name] = bool(self._at(key))
        for key, changes in self.family.get("switches", {}).items():
            fields |= changes if self._at(key) else {}
        for key, changes in self.family.get("unless", {}).items():
            fields |= {} if self._at(key) else changes
        fields |= self._activation()
        if fields["positions"] == "rope" and sizes.rotary_dim < sizes.head_dim:
            fields |= {"rotary": "partial", "heads_first": True}
        if sizes.embedding != sizes.hidden or self.family.get("always_projects"):
            fields["embedding_projection"] = self.family.get("projection", "after-norm")
        fields["convolution"] = self._convolution()
        self._check_only()
        fields["latent_experts"] = sizes.expert_latent > 0
        if fields.get("latent"):
            fields["latent_queries"] = sizes.query_rank > 0
        return Style(**fields)

    def _check_only(self) -> None:
        """Switches of which only some settings are wired."""
        for key, wired in self.family.get("only", {}).items():
            if self._at(key) not in wired:
                first = next(value for value in wired if value is not None)
                self.problems.append(f"{key} {self._at(key)!r} is not built, only {first!r}")

    def _convolution(self) -> int:
        """Tokens under DeBERTa's convolution beside its first block; every channel sees all."""
        if self._at("conv_kernel_size") and self._at("conv_groups") not in (None, 1):
            self.problems.append("conv_groups other than 1 is not supported")
        return self._optional("convolution") or 0

    def _activation(self) -> dict[str, Any]:
        if self.family.get("swiglu") and self._at(self.family["swiglu"]):
            return {"gated_mlp": True, "activation": "silu"}
        if "feed_forward" in self.family:
            return self._projected_activation(str(self._at(self.family["feed_forward"])))
        act = self.family.get("activation") or self._at(self.keys["activation"])
        if act not in ACTIVATIONS:
            known = ", ".join(sorted(ACTIVATIONS))
            self.problems.append(f"{self.keys['activation']} {act!r} is not known; known: {known}")
        return ACTIVATIONS.get(str(act), {})

    def _projected_activation(self, stated: str) -> dict[str, Any]:
        """T5's `feed_forward_proj`: an activation, gated or not; gated gelu means the new one."""
        gated, act = stated.startswith("gated-"), stated.removeprefix("gated-")
        if gated and act == "gelu":
            act = "gelu_new"
        if act not in ACTIVATIONS:
            self.problems.append(f"{self.family['feed_forward']} {stated!r} is not known")
        return {"gated_mlp": gated, **ACTIVATIONS.get(act, {})}

    def head(self, source: ModelSource) -> HeadStyle:
        """The head asked for, or the one the architecture is published with."""
        published: dict[str, Any] = dict(self.family["head"])
        for name, key in self.family.get("head_from_config", {}).items():
            published[name] = bool(self._at(key))
        if "WithTeacher" in str(self.config.get("architectures")):
            published["teacher"] = True
        tied = bool(self.config.get("tie_word_embeddings", True))
        asked = source.head or published["kind"]
        if asked == "pretraining":
            asked = published["kind"]
        if asked == "none":
            return HeadStyle(**{"kind": "none", **self.family.get("body_head", {})})
        if asked == "sequence-classification":
            return HeadStyle(
                kind="sequence-classification",
                upcast_logits=False,
                **self.family.get("classifier", {}),
            )
        if asked != published["kind"]:
            self.problems.append(
                f"head {asked!r} does not go with {self.config['model_type']}; "
                f"use {published['kind']!r}, 'sequence-classification' or 'none'"
            )
        return HeadStyle(**{"tied": tied, **published})
