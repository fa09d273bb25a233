"""Builds the runs of a model from its configuration: one stack, or an encoder and a decoder."""

from __future__ import annotations

from dataclasses import replace

from sizewright_server.estimation.architecture import Run, Sizes, Style, stacked
from sizewright_server.estimation.config_reader import ConfigReader
from sizewright_server.estimation.layer_rules import runs_of


def read_runs(reader: ConfigReader, style: Style, sizes: Sizes) -> tuple[Run, ...]:
    """Every run in the order of the forward pass. Raises ValueError with what is wrong."""
    family = reader.family
    if family.get("stacks") == "encoder-decoder":
        return _two_stacks(reader, style, sizes)
    if family.get("layers") == "one-shared":
        return stacked(style, sizes, *_shared_blocks(reader, style, sizes))
    blocks = runs_of(family.get("layers"), reader.config, style, sizes)
    differ = style.position_bias != "none" or style.disentangled != "none"
    if differ or not style.first_norm or style.residual_fp32:
        blocks = _with_ends(blocks)
    runs = stacked(style, sizes, *blocks)
    if sizes.patches:
        runs = (replace(runs[0], lowering="patches"), *runs[1:])
    return runs


def _shared_blocks(reader: ConfigReader, style: Style, sizes: Sizes) -> list[Run]:
    """ALBERT: one block's parameters run `layers` times; the last to run makes their gradients."""
    groups = (reader.config.get("num_hidden_groups", 1), reader.config.get("inner_group_num", 1))
    if groups != (1, 1):
        raise ValueError("num_hidden_groups and inner_group_num other than 1 are not supported")
    own = Run("block", "block", "block", 1, style, sizes)
    if sizes.layers == 1:
        return [own]
    before = replace(own, name="block-again", count=sizes.layers - 1)
    return [replace(before, style=replace(style, borrowed=True)), own]


def _with_ends(blocks: tuple[Run, ...]) -> tuple[Run, ...]:
    """The first and the last block as runs of their own."""
    if blocks[0].count > 1:
        first, rest = replace(blocks[0], count=1), replace(blocks[0], count=blocks[0].count - 1)
        blocks = (first, rest, *blocks[1:])
    if blocks[-1].count > 1:
        rest, last = replace(blocks[-1], count=blocks[-1].count - 1), replace(blocks[-1], count=1)
        blocks = (*blocks[:-1], rest, last)
    made = []
    for index, run in enumerate(blocks):
        ends = replace(run.style, first=index == 0, last=index == len(blocks) - 1)
        name = f"{blocks[0].name}-{index}" if index else blocks[0].name
        made.append(replace(run, name=name, style=ends))
    return tuple(made)


def _two_stacks(reader: ConfigReader, style: Style, sizes: Sizes) -> tuple[Run, ...]:
    """Encoder embedding, blocks and end; decoder embedding, blocks and head."""
    encoder = replace(style, causal=False)
    decoder = replace(style, causal=True, cross_attention=True)
    if not style.buffered_positions:
        decoder = replace(decoder, positions_per_sample=False)
    own = replace(reader.decoder_sizes(sizes), stack="decoder")
    entry = "mel" if sizes.patches else "encoder-embedding"
    blocks = (Run("encoder-block", "block", "block", sizes.layers, encoder, sizes),)
    answers = (Run("decoder-block", "block", "block", own.layers, decoder, own),)
    return (
        Run("encoder-embedding", "embedding", entry, 1, encoder, sizes),
        *_with_ends(blocks),
        Run("encoder-end", "between", "encoder-end", 1, encoder, sizes),
        Run("decoder-embedding", "between", "decoder-embedding", 1, decoder, own),
        *_with_ends(answers),
        Run("head", "head", "decoder-head", 1, decoder, own),
    )
