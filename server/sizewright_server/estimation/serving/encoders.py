"""Vision towers of multimodal models, with the projector that turns patches into tokens.

Shapes follow the modelling code in transformers 5.23; what a configuration leaves out is that
class's own default.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.serving.config import Settings
from sizewright_server.estimation.serving.model import Encoder, Tensor

Parts = list[tuple[int, int, int]]


@cache
def _defaults() -> dict[str, dict[str, int]]:
    """Keys a tower's configuration may leave out, by tower."""
    table: dict[str, dict[str, int]] = data_of("sizewright_server.estimation.serving", "encoders")
    return table


def encoder_of(name: str, config: dict[str, Any], settings: Settings) -> Encoder | None:
    """The tower of a configuration; None where a family's file states none it can be built from."""
    stated = config.get("vision_config")
    vision = {**_defaults().get(name, {}), **(stated if isinstance(stated, dict) else {})}
    text_hidden = settings.size("hidden")
    numbers = Settings(vision, {})
    builder = _BUILDERS.get(name)
    if builder is None:
        return None
    made = builder(numbers, text_hidden, config)
    settings.problems += [f"vision_config: {problem}" for problem in numbers.problems]
    return made


def _tower(shapes: Parts, hidden: int, ffn: int, layers: int, tokens: int, patches: int) -> Encoder:
    # Feed-forward matrices are divided by tensor parallelism, the rest stands on every rank: so
    # vLLM's logs of Llama 4 and Kimi-VL at tensor-parallel 4 and 2 say.
    tensors = tuple(
        Tensor("vision", rows, columns, count, "width" if ffn in (rows, columns) else "none")
        for rows, columns, count in shapes
    )
    return Encoder(tensors, hidden, ffn, layers, tokens, patches)


def _plain_block(hidden: int, ffn: int) -> Parts:
    """Two norms, four attention matrices, two feed-forward matrices, every one with a bias."""
    return [
        (hidden, 1, 4),
        (hidden, hidden, 4),
        (hidden, 1, 4),
        (ffn, hidden, 1),
        (ffn, 1, 1),
        (hidden, ffn, 1),
        (hidden, 1, 1),
    ]


def _times(parts: Parts, layers: int) -> Parts:
    return [(rows, columns, count * layers) for rows, columns, count in parts]


def _plain(
    vision: Settings, projector: Parts, tokens: int, *, norms: int = 2, extra_rows: int = 0
) -> Encoder:
    """A ViT of SigLIP's or CLIP's shape with its projector; 0 tokens are one for each patch."""
    hidden, ffn, layers = vision.size("hidden"), vision.size("ffn"), vision.size("layers")
    patch, side = vision.size("patch_size"), vision.size("image_size") // vision.size("patch_size")
    shapes = [
        (hidden, 3 * patch * patch, 1),
        (hidden, 1, 1),
        (side * side + extra_rows, hidden, 1),
        (hidden, 1, norms),
        *_times(_plain_block(hidden, ffn), layers),
        *projector,
    ]
    return _tower(shapes, hidden, ffn, layers, tokens or side * side, side * side)


def _siglip(vision: Settings, text: int, config: dict[str, Any]) -> Encoder:
    """SigLIP and Gemma 3's pooled projector."""
    hidden = vision.size("hidden")
    tokens = int(config.get("mm_tokens_per_image") or 256)
    return _plain(vision, [(hidden, text, 1), (hidden, 1, 1)], tokens)


def _siglip_projected(vision: Settings, text: int, config: dict[str, Any]) -> Encoder:
    """SigLIP and PaliGemma's linear projector."""
    return _plain(vision, [(text, vision.size("hidden"), 1), (text, 1, 1)], 0)


def _clip(vision: Settings, text: int, config: dict[str, Any]) -> Encoder:
    """CLIP, whose patches have no bias but a class token, and LLaVA's two-layer projector."""
    hidden = vision.size("hidden")
    projector = [(text, hidden, 1), (text, 1, 1), (text, text, 1), (text, 1, 1)]
    return _plain(vision, projector, 0, norms=4, extra_rows=1)


def _pixtral(vision: Settings, text: int, config: dict[str, Any]) -> Encoder:
    """Pixtral: gated, without biases; the projector merges patches (Mistral 3)."""
    hidden, ffn, layers = vision.size("hidden"), vision.size("ffn"), vision.size("layers")
    patch, side = vision.size("patch_size"), vision.size("image_size") // vision.size("patch_size")
    merge = int(config.get("spatial_merge_size") or 2)
    shapes = [
        (hidden, 3 * patch * patch, 1),
        (hidden, 1, 1),
        (hidden, hidden, 4 * layers),
        (ffn, hidden, 3 * layers),
        (hidden, 1, 2 * layers),
        (hidden, 1, 1),
        (hidden, merge * merge * hidden, 1),
        (text, hidden, 1),
        (text, text, 1),
    ]
    return _tower(shapes, hidden, ffn, layers, (side // merge) ** 2, side * side)


#: The largest image Qwen's processors admit by default: 16,384 tokens of 28 or 32 pixels a side.
QWEN_MAX_TOKENS = 16_384


def _qwen(vision: Settings, text: int, config: dict[str, Any]) -> Encoder:
    """Qwen2-VL and Qwen2.5-VL: patches of two frames, a merger of 2 x 2 patches."""
    gated = "mlp_ratio" not in vision.values
    width = "hidden_size" if gated else "embed_dim"
    hidden = vision.optional(width) or vision.size("hidden")
    layers, patch = vision.size("depth"), vision.size("patch_size")
    ffn = vision.optional("ffn") or hidden * vision.or_else("mlp_ratio", 4)
    merged, norms = 4 * hidden, 1 if gated else 2
    shapes = [
        (hidden, 3 * 2 * patch * patch, 1),
        (hidden, 1, 2 * norms * layers),
        (3 * hidden, hidden, layers),
        (3 * hidden, 1, layers),
        (hidden, hidden, layers),
        (hidden, 1, layers),
        (ffn, hidden, (3 if gated else 2) * layers),
        (ffn, 1, (2 if gated else 1) * layers),
        (hidden, 1, layers),
        (hidden, 1, norms),
        (merged, merged, 1),
        (merged, 1, 1),
        (text, merged, 1),
        (text, 1, 1),
    ]
    return _tower(shapes, hidden, ffn, layers, QWEN_MAX_TOKENS, 4 * QWEN_MAX_TOKENS)


def _qwen3(vision: Settings, text: int, config: dict[str, Any]) -> Encoder:
    """Qwen3-VL and Qwen3.5: biases, learned positions, and mergers of deeper layers."""
    hidden, ffn = vision.size("hidden"), vision.size("ffn")
    layers, patch = vision.size("depth"), vision.size("patch_size")
    positions = vision.or_else("num_position_embeddings", 2304)
    deep = len(vision.numbers("deepstack_visual_indexes"))
    merged = 4 * hidden
    merger = [(merged, merged, 1), (merged, 1, 1), (text, merged, 1), (text, 1, 1)]
    shapes = [
        (hidden, 3 * 2 * patch * patch, 1),
        (hidden, 1, 1),
        (positions, hidden, 1),
        *_times(_plain_block(hidden, ffn), layers),
        (hidden, 1, 2),
        *merger,
        *_times([(merged, 1, 2), *merger], deep),
    ]
    return _tower(shapes, hidden, ffn, layers, QWEN_MAX_TOKENS, 4 * QWEN_MAX_TOKENS)


def _moonvit(vision: Settings, text: int, config: dict[str, Any]) -> Encoder:
    """MoonViT (Kimi-VL): a SigLIP-shaped tower and a two-layer projector over 2 x 2 patches."""
    hidden, ffn, layers = vision.size("hidden"), vision.size("ffn"), vision.size("layers")
    patch = vision.size("patch_size")
    rows = vision.size("init_pos_emb_height") * vision.size("init_pos_emb_width")
    merged = 4 * hidden
    shapes = [
        (hidden, 3 * patch * patch, 1),
        (hidden, 1, 1),
        (rows, hidden, 1),
        *_times(_plain_block(hidden, ffn), layers),
        (hidden, 1, 4),
        (merged, merged, 1),
        (merged, 1, 1),
        (text, merged, 1),
        (text, 1, 1),
    ]
    return _tower(shapes, hidden, ffn, layers, rows // 4, rows)


def _llama4(vision: Settings, text: int, config: dict[str, Any]) -> Encoder:
    """Llama 4's tower: pixel shuffle, a two-layer adapter, and the projector."""
    inner, side = vision.size("projector_input_dim"), vision.size("image_size")
    projector = [
        (inner, vision.size("ffn"), 1),
        (vision.size("projector_output_dim"), inner, 1),
        (text, vision.size("vision_output_dim"), 1),
    ]
    tokens = (side // vision.size("patch_size")) ** 2 // 4
    return _plain(vision, projector, tokens, norms=4, extra_rows=1)


def _mllama(vision: Settings, text: int, config: dict[str, Any]) -> Encoder:
    """Llama 3.2 Vision: local and gated global layers over four tiles."""
    hidden, ffn, layers = vision.size("hidden"), vision.size("ffn"), vision.size("layers")
    patch, side = vision.size("patch_size"), vision.size("image_size") // vision.size("patch_size")
    deep, tiles = vision.size("num_global_layers"), vision.size("max_num_tiles")
    ratios = len(vision.values.get("supported_aspect_ratios") or range(8)) + 1
    rows = side * side + 1
    block = [
        (hidden, 1, 4),
        (hidden, hidden, 4),
        (ffn, hidden, 1),
        (ffn, 1, 1),
        (hidden, ffn, 1),
        (hidden, 1, 1),
    ]
    output = vision.or_else("vision_output_dim", 7680)
    shapes = [
        (hidden, 3 * patch * patch, 1),
        (hidden, 1, 1),
        (rows, hidden, 1),
        (1, 1, 1),
        (ratios, tiles * rows * hidden, 1),
        (ratios, tiles * hidden, 2),
        (1, 1, 2),
        (hidden, 1, 4),
        *_times(block, layers + deep),
        (1, 1, 2 * deep),
        (text, output, 1),
        (text, 1, 1),
    ]
    return _tower(shapes, hidden, ffn, layers + deep, tiles * rows, tiles * rows)


def _gemma4(vision: Settings, text: int, config: dict[str, Any]) -> Encoder:
    """Gemma 4's tower: gated and normed like its text layers, pooled, without biases."""
    hidden, ffn, layers = vision.size("hidden"), vision.size("ffn"), vision.size("layers")
    patch, rows = vision.size("patch_size"), vision.size("position_embedding_size")
    shapes = [
        (hidden, 3 * patch * patch, 1),
        (2 * rows, hidden, 1),
        (hidden, hidden, 4 * layers),
        (ffn, hidden, 3 * layers),
        (hidden, 1, 4 * layers),
        (vision.or_else("head_dim", 72), 1, 2 * layers),
        (text, hidden, 1),
    ]
    tokens = vision.or_else("default_output_length", 280)
    return _tower(shapes, hidden, ffn, layers, tokens, tokens * 9)


_BUILDERS = {
    "gemma4": _gemma4,
    "siglip": _siglip,
    "siglip-projected": _siglip_projected,
    "clip": _clip,
    "pixtral": _pixtral,
    "qwen2": _qwen,
    "qwen2.5": _qwen,
    "qwen3": _qwen3,
    "moonvit": _moonvit,
    "llama4": _llama4,
    "mllama": _mllama,
}
