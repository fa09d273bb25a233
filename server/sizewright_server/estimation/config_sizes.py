"""Reads the sizes of one Hugging Face configuration by its family's entry in `families.json`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sizewright_server.estimation.architecture import Sizes
from sizewright_server.estimation.block_configs import read_blocks, widest
from sizewright_server.estimation.config_values import ConfigValues
from sizewright_server.estimation.hybrid_layers import nemotron_halves
from sizewright_server.estimation.recurrent import RecurrentSizes


class ConfigSizes(ConfigValues):
    """Reads the numbers of one configuration; collects what is wrong."""

    def __init__(self, config: dict[str, Any], family: dict[str, Any], field: str) -> None:
        super().__init__(config, family, field)
        if family.get("layers") == "block-configs":
            self.config |= widest(read_blocks(self.config, self.problems))
        if family.get("layers") == "nemotron-h":
            self.config["num_hidden_layers"] = self._pattern_length()
        #: The images' size where the run states one.
        self.image_size: int | None = None

    def _pattern_length(self) -> int:
        """Layers of a stack whose pattern lists them; `num_hidden_layers` has no say then."""
        try:
            return len(nemotron_halves(self.config))
        except ValueError as wrong:
            self.problems.append(str(wrong))
            return 1

    def sizes(self) -> Sizes:
        """The numbers, with the family's rules for what a configuration leaves out."""
        hidden, heads = self._size("hidden"), self._size("heads")
        head_dim = self._optional("head_dim") or self._divide(hidden, heads)
        made = Sizes(
            layers=self._size("layers"),
            hidden=hidden,
            heads=heads,
            kv_heads=self._kv_heads(heads),
            head_dim=head_dim,
            ffn=self._optional("ffn") or self._ffn(hidden),
            vocab=self._size("vocab") if self.keys["vocab"] else 1,
            position_rows=self._position_rows(),
            token_types=self._optional("token_types") or 0,
            embedding=self._optional("embedding") or hidden,
            rotary_dim=self._rotary_dim(head_dim),
            attention_dropout=self._probability("attention_dropout"),
            hidden_dropout=self._probability("hidden_dropout"),
            embedding_dropout=self._probability("embedding_dropout"),
            buckets=self._buckets(),
            label_count=self._labels(),
        )
        more: dict[str, Any] = self._patch_sizes() | self._expert_sizes() | self._latent_sizes()
        more |= self._delta_sizes()
        more |= self._recurrent_sizes(hidden)
        return replace(made, **more)

    def decoder_sizes(self, encoder: Sizes) -> Sizes:
        """The decoder's numbers where they have keys of their own."""
        width = encoder.heads * encoder.head_dim
        heads = self._optional("decoder_heads") or encoder.heads
        if width % heads and not self.problems:
            key = self.keys["decoder_heads"]
            self.problems.append(f"the width of {width} is not a multiple of {key} {heads}")
        return replace(
            encoder,
            layers=self._optional("decoder_layers") or encoder.layers,
            heads=heads,
            kv_heads=heads,
            head_dim=width // heads,
            ffn=self._optional("decoder_ffn") or encoder.ffn,
            position_rows=self._position_rows("decoder_positions") or encoder.position_rows,
        )

    def _buckets(self) -> int:
        """Rows of the table of relative positions; DeBERTa's covers both directions."""
        if self.family["style"].get("disentangled", "none") == "none":
            return self._optional("buckets") or 0
        for key in ("position_buckets", "max_relative_positions", "max_position_embeddings"):
            stated = self._at(key)
            if isinstance(stated, int) and stated > 0:
                return 2 * stated
        self.problems.append("position_buckets is missing")
        return 2

    def _labels(self) -> int:
        """Labels of a classifier: stated as a count or as a table of names."""
        stated = self.config.get("num_labels")
        named = self.config.get("id2label")
        if isinstance(stated, int) and stated > 0:
            return stated
        return len(named) if isinstance(named, dict) and named else 2

    def _patch_sizes(self) -> dict[str, int]:
        if "mel_bins" in self.keys:
            bins, frames = self._size("mel_bins"), self._size("positions")
            return {"patches": frames, "patch_values": 3 * bins, "pixels": 2 * frames * bins}
        if "patch_size" not in self.keys:
            return {}
        patch, channels = self._size("patch_size"), self._optional("channels") or 3
        image = self.image_size or self._size("image_size")
        side = image // patch
        special = int(self.family.get("special_tokens", 1))
        return {
            "patches": side * side,
            "special_tokens": special,
            "patch_values": channels * patch * patch,
            "pixels": channels * image * image,
        }

    def _expert_sizes(self) -> dict[str, int]:
        if not self.family["style"].get("experts"):
            return {}
        ffn = self._size("expert_ffn")
        shared = self._optional("shared_ffn") if "shared_ffn" in self.keys else None
        if "shared_experts" in self.keys:
            shared = (self._optional("shared_experts") or 0) * ffn
        return {
            "experts": self._size("experts"),
            "experts_per_token": self._size("experts_per_token"),
            "expert_ffn": ffn,
            "shared_ffn": shared or 0,
            "expert_latent": self._optional("expert_latent") or 0,
        }

    def _latent_sizes(self) -> dict[str, int]:
        if not self.family["style"].get("latent"):
            return {}
        indexer = [name for name in INDEXER if name in self.keys]
        return {name: self._size(name) for name in indexer} | {
            "query_rank": self._optional("query_rank") or 0,
            "latent_rank": self._size("latent_rank"),
            "latent_rotary": self._size("latent_rotary"),
            "latent_plain": self._size("latent_plain"),
            "value_dim": self._size("value_dim"),
        }

    def _delta_sizes(self) -> dict[str, int]:
        """Of the gated delta nets in place of some layers' attention."""
        if "delta_heads" not in self.keys:
            return {}
        names = ("delta_heads", "delta_key_heads", "delta_key_dim", "delta_value_dim")
        made = {name: self._size(name) for name in (*names, "conv_kernel")}
        if made["delta_heads"] % made["delta_key_heads"]:
            self.problems.append(
                f"{self.keys['delta_heads']} {made['delta_heads']} is not a multiple of "
                f"{self.keys['delta_key_heads']} {made['delta_key_heads']}"
            )
        return made

    def _recurrent_sizes(self, hidden: int) -> dict[str, Any]:
        """Mamba's widths; a model without a feed-forward half is as wide as its channels."""
        kind = self.family["style"].get("mixer", "attention")
        if kind not in ("mamba", "mamba2"):
            return {}
        state, taps = self._size("state"), self._size("taps")
        if kind == "mamba2":
            heads, groups = self._size("mixer_heads"), self._size("groups")
            if heads % groups:
                self.problems.append(
                    f"{self.keys['mixer_heads']} {heads} is not a multiple of "
                    f"{self.keys['groups']} {groups}"
                )
            inner = heads * self._size("mixer_head_dim")
            own = {"heads": heads, "groups": groups, "chunk": self._size("chunk")}
            return {"recurrent": RecurrentSizes(inner, state, taps, **own)}
        inner = int(hidden * float(self._at(self.keys["expand"])))
        automatic = self._at(self.keys["rank"]) == "auto"
        rank = -(-hidden // 16) if automatic else self._size("rank")
        alone = self.family["style"].get("feeds_forward") is False
        made = {"recurrent": RecurrentSizes(inner, state, taps, rank)}
        return made | ({"ffn": inner} if alone else {})

    def _divide(self, hidden: int, heads: int) -> int:
        if hidden % heads:
            self.problems.append(
                f"{self.keys['hidden']} {hidden} is not a multiple of {self.keys['heads']} {heads}"
            )
        return max(1, hidden // heads)

    def _kv_heads(self, heads: int) -> int:
        grouped = self.family.get("kv_heads_if")
        if self.family.get("one_kv_head_if") and not (grouped and self._at(grouped)):
            return 1 if self._at(self.family["one_kv_head_if"]) else heads
        kv_heads = self._optional("kv_heads") or heads
        if heads % kv_heads:
            self.problems.append(
                f"{self.keys['heads']} {heads} is not a multiple of "
                f"{self.keys['kv_heads']} {kv_heads}"
            )
        return kv_heads

    def _ffn(self, hidden: int) -> int:
        if "ffn_ratio" in self.family:
            return self._scaled_ffn(hidden)
        multiple: int | None = self.family.get("ffn_multiple")
        if multiple is None:
            self.problems.append(f"{self.keys['ffn']} is missing")
            return 1
        return multiple * hidden

    def _scaled_ffn(self, hidden: int) -> int:
        """A stated multiple of the width; gated layers take two thirds, in steps of 8 (DINOv2)."""
        width = int(hidden * float(self._at(self.family["ffn_ratio"]) or 4))
        if self.family.get("swiglu") and self._at(self.family["swiglu"]):
            return (int(width * 2 / 3) + 7) // 8 * 8
        return width

    def _position_rows(self, name: str = "positions") -> int:
        style = self.family["style"]
        counted = style["positions"] == "learned" or style.get("position_buffer")
        if not counted or name not in self.keys:
            return 0
        if "patch_size" in self.keys:
            made = self._patch_sizes()
            return made["patches"] + made["special_tokens"]
        extra: int = self.family.get("extra_position_rows", 0)
        return self._size(name) + extra

    def _rotary_dim(self, head_dim: int) -> int:
        if "rotary_dim" in self.keys:
            return self._optional("rotary_dim") or head_dim
        for key in self.family.get("rotary_fraction", ()):
            stated = self._at(key)
            if stated is not None:
                return int(head_dim * float(stated))
        return head_dim


#: Sizes of an indexer, where a family has one.
INDEXER = ("index_heads", "index_head_dim", "index_keys")
