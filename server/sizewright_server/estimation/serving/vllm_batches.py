"""The batches vLLM schedules where nothing is stated: sequences and tokens, by device and version.

Source: vllm/engine/arg_utils.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_server.estimation.serving.devices import SIZES
from sizewright_server.estimation.serving.rules import Rules
from sizewright_server.estimation.serving.run import ServingDevice, ServingRun

#: Contexts above which V0 prefills in chunks by itself (arg_utils.py).
V0_CHUNKS_FROM = 32_768
V0_CHUNK = 2_048
#: Memory from which default batches are larger, and largest; tokens of a batch below, between and
#: above them, of the server and of the offline class (arg_utils.py, `get_batch_defaults`).
LARGE_FROM, LARGEST_FROM = SIZES["vllm"]
SERVER_TOKENS, OFFLINE_TOKENS = (2048, 8192, 16_384), (8192, 16_384, 16_384)


@dataclass(frozen=True, slots=True)
class Batches:
    """Defaults that follow from the device and the version (arg_utils.py)."""

    sequences: int
    tokens: int


def _tier(rules: Rules, device: ServingDevice) -> int:
    """The row of default batches the device gets by its memory and name."""
    size = device.sized_bytes
    if size >= LARGEST_FROM and rules.rule("largest-batches").on:
        return 2
    modest = device.modest and rules.rule("modest-devices").on
    return int((not size or size >= LARGE_FROM) and not modest)


def default_batches(
    rules: Rules, run: ServingRun, device: ServingDevice, generation: str, longest: int
) -> Batches:
    """The batches of a run: as stated, else by its device, version and longest context."""
    if generation == "v1":
        tier = _tier(rules, device)
        small = int(rules.rule("default-sequences").value)
        sequences = run.max_num_seqs or (1024 if tier else small)
        tokens = (OFFLINE_TOKENS if run.offline else SERVER_TOKENS)[tier]
        return Batches(sequences, run.max_num_batched_tokens or tokens)
    sequences = run.max_num_seqs or 256
    chunked = run.chunked_prefill
    if chunked is None:
        chunked = longest > V0_CHUNKS_FROM
    most = V0_CHUNK if chunked else max(longest, V0_CHUNK)
    return Batches(sequences, run.max_num_batched_tokens or most)
