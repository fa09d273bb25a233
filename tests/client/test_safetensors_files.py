"""Headers of weight files: read without their data, and never believed beyond the file's size."""

from __future__ import annotations

import json
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sizewright_client.request_file import load_request
from sizewright_client.safetensors_files import read_model

Claims = dict[str, dict[str, Any]]


def write(path: Path, header: Claims | bytes, data_bytes: int, length: int | None = None) -> None:
    """A file whose data is a hole: it takes no room on the disk."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text) if length is None else length))
        file.write(text)
        file.truncate(8 + len(text) + data_bytes)


def claim(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def two_layers() -> Claims:
    return {
        "__metadata__": {"format": "pt"},
        "model.layers.0.mlp.weight": claim("BF16", [4, 8], 0, 64),
        "model.layers.1.mlp.weight": claim("BF16", [4, 8], 64, 128),
        "lm_head.weight": claim("F32", [2, 4], 128, 160),
    }


def test_equal_tensors_of_layers_become_one_entry(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", two_layers(), 160)

    found = {stored.name: stored for stored in read_model(".", tmp_path)}

    layers = found["model.layers.*.mlp.weight"]
    assert (layers.count, layers.stored_bytes, layers.shape) == (2, 128, (4, 8))
    assert found["lm_head.weight"].stored_bytes == 32


def test_a_terabyte_of_weights_is_sized_from_its_header(tmp_path: Path) -> None:
    size = 2**40
    write(tmp_path / "big.safetensors", {"w": claim("U8", [size], 0, size)}, size)

    (stored,) = read_model("big.safetensors", tmp_path)

    assert stored.stored_bytes == size


def test_every_shard_of_an_index_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", {"a": claim("F16", [8], 0, 16)}, 16)
    write(tmp_path / "b.safetensors", {"b": claim("F16", [8], 0, 16)}, 16)
    index = {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))

    assert sorted(stored.name for stored in read_model(".", tmp_path)) == ["a", "b"]


@pytest.mark.parametrize(
    ("header", "data_bytes", "length", "words"),
    [
        (
            {"w": claim("F32", [8], 0, 32)},
            16,
            None,
            "lies: tensor 'w' ends at byte 32",
        ),
        ({"w": claim("F32", [8], 0, 16)}, 16, None, "takes 32 bytes and claims 16"),
        ({"w": claim("F32", [2**40, 2**40], 0, 16)}, 16, None, "claims 16"),
        ({"w": claim("F99", [4], 0, 16)}, 16, None, "unknown type 'F99'"),
        ({"w": claim("F32", [-4], 0, 16)}, 16, None, "no shape of whole numbers"),
        ({"w": {"dtype": "F32", "shape": [4]}}, 16, None, "no pair of data_offsets"),
        (
            {"a": claim("F32", [4], 0, 16), "b": claim("F32", [4], 8, 24)},
            24,
            None,
            "overlap at byte 8",
        ),
        (
            {"a": claim("F32", [4], 0, 16), "b": claim("F32", [4], 32, 48)},
            48,
            None,
            "leave a hole at byte 16",
        ),
        ({"a": claim("F32", [4], 0, 16)}, 64, None, "has 64 bytes of data and its tensors take 16"),
        (b"{}", 0, 2**63, "claims a header of 9,223,372,036,854,775,808 bytes"),
        (b"{}", 0, 5000, "cut short: its header has 5,000 bytes and the file 10"),
        (b"[1]", 0, None, "not a JSON object"),
        (b"{nothing", 0, None, "not JSON"),
        (b'{"a": 1, "a": 2}', 0, None, "a name twice"),
        (b"[" * 90_000, 0, None, "nested too deep"),
        (b'{"\xff": 1}', 0, None, "not UTF-8"),
        (b"{}", 0, None, "holds no tensor"),
        (b'{"__metadata__": {"format": "pt"}}', 0, None, "holds no tensor"),
        (b'{"a": [' + b"[]," * 2_000_001 + b"[]]}", 0, None, "more than 2,000,000 times '['"),
        (b'{"a": [' + b'"",' * 6_000_001 + b'""]}', 0, None, "more than 12,000,000 times"),
        ({"w": claim("F32", [2**53], 0, 16)}, 16, None, "no shape of whole numbers"),
        ({"w": claim("F32", [1] * 17, 0, 4)}, 4, None, "no shape of whole numbers"),
        ({"w": claim("F32", [True], 0, 4)}, 4, None, "no shape of whole numbers"),
        ({"w": claim("F32", [1], 4, 0)}, 4, None, "lies: tensor 'w' ends at byte 0"),
        (b'{"w": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 4]}}', 4, None, "shape"),
        (b'{"w": ' + b"9" * 5000 + b"}", 0, None, "not JSON"),
    ],
)
def test_a_file_that_lies_about_itself_is_refused_with_what_is_wrong(
    tmp_path: Path, header: Claims | bytes, data_bytes: int, length: int | None, words: str
) -> None:
    write(tmp_path / "model.safetensors", header, data_bytes, length)

    with pytest.raises(ValueError, match=r"model\.safetensors") as refused:
        read_model("model.safetensors", tmp_path)

    assert words in str(refused.value)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.safetensors", {"w": claim("F16", [8], 0, 16)}, 16)

    with pytest.raises(ValueError, match=r"b\.safetensors: tensor 'w' is in another file too"):
        read_model(".", tmp_path)


def test_adapters_and_other_formats_beside_a_whole_model_are_left_out(tmp_path: Path) -> None:
    for name in ("model", "adapter_model", "consolidated"):
        write(tmp_path / f"{name}.safetensors", {f"{name}.w": claim("F16", [8], 0, 16)}, 16)

    assert [stored.name for stored in read_model(".", tmp_path)] == ["model.w"]


def test_a_pipe_is_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")

    with pytest.raises(ValueError, match="not a regular file"):
        read_model("model.safetensors", tmp_path)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", ""])
def test_an_index_names_no_file_outside_its_folder(tmp_path: Path, name: str) -> None:
    index = {"weight_map": {"w": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(ValueError, match="not a file beside it"):
        read_model(".", tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = {"weight_map": {"w": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(ValueError, match=r"no such file: .*00001-of-00002"):
        read_model(".", tmp_path)


def test_a_request_names_a_folder_and_its_configuration_comes_along(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", two_layers(), 160)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    request = tmp_path / "job.yaml"
    request.write_text(
        "workload: {model: {safetensors: .}, inference: {engine: vllm, batch: 1, input_tokens: 8}}"
    )

    model = load_request(str(request)).workload.model.safetensors

    assert json.loads(model.hf_config.json) == {"model_type": "llama"}
    assert sum(tensor.stored_bytes for tensor in model.tensors) == 160
    assert {tensor.dtype for tensor in model.tensors} == {"bf16", "f32"}


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=200), length=st.integers(0, 2**64 - 1))
def test_no_content_at_all_does_more_than_be_refused(
    tmp_path: Path, content: bytes, length: int
) -> None:
    path = tmp_path / "model.safetensors"
    for start in (struct.pack("<Q", length), struct.pack("<Q", len(content)), b""):
        path.write_bytes(start + content)
        with suppress(ValueError):
            read_model("model.safetensors", tmp_path)
