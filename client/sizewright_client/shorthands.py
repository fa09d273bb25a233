"""The forms a request file may use that the contract's descriptors cannot tell.

- A message with one field takes that field's value directly: `parameters: 8B`.
- `optimizer: adamw` is `optimizer: {name: adamw}`, `adapter: lora` is `adapter: {method: lora}`,
  `base_weights: nf4` is `{format: nf4}`, `preference: dpo` is `{method: dpo}` and a machine's
  `host_memory: 64GiB` is `{nominal: 64GiB}`.
- `parallelism: auto`, or `parallelism: {dp: 8, zero: 3}` for `{explicit: {dp: 8, zero: 3}}`.
- `hf_config: ./config.json` reads that file, or `config.json` in that folder; a mapping with no
  `json` in it is taken as the configuration itself. The same for `keras`.
- `machines: [dgx-h100]` is `[{name: machines/dgx-h100, model: dgx-h100}]`, and a machine's name
  goes without `machines/`.
- `safetensors: ./folder` (or a file, or an index) reads the files' headers, and the config.json
  beside them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor

from sizewright_client.model_files import read_json_object
from sizewright_client.nodes import Entry, Mapping, Node, Scalar, Sequence
from sizewright_client.quantities import number
from sizewright_client.safetensors_files import beside, read_model

JSON_TEXT_MAPS = frozenset({"sizewright.v1.Estimator.hyper_parameters"})
_JSON_MESSAGES = frozenset({"sizewright.v1.HfConfig", "sizewright.v1.KerasModel"})
_SCALAR_FIELDS = {
    "sizewright.v1.Optimizer": "name",
    "sizewright.v1.Adapter": "method",
    "sizewright.v1.BaseWeights": "format",
    "sizewright.v1.Preference": "method",
    "sizewright.v1.HostMemory": "nominal",
}
_PARALLELISM = "sizewright.v1.Parallelism"
_MACHINE = "sizewright.v1.Machine"
_MACHINE_PREFIX = "machines/"
_SAFETENSORS = "sizewright.v1.SafetensorsModel"


def expanded(message: Descriptor, node: Node, folder: Path) -> Node:
    """The node with its shorthand written out, if it is one.

    Raises ValueError with what would be right, for a file that cannot be read among others.
    """
    if message.full_name in _JSON_MESSAGES:
        return _json_message(node, folder)
    if message.full_name == _PARALLELISM:
        return _parallelism(node)
    if message.full_name == _MACHINE:
        return _machine(node)
    if isinstance(node, Scalar) and message.full_name == _SAFETENSORS:
        return _stored(node, folder)
    if isinstance(node, Scalar) and message.full_name in _SCALAR_FIELDS:
        return _wrapped(_SCALAR_FIELDS[message.full_name], node)
    if len(message.fields) == 1 and not isinstance(node, Mapping):
        return _wrapped(message.fields[0].name, node)
    return node


def _parallelism(node: Node) -> Node:
    if isinstance(node, Scalar):
        if node.text != "auto":
            raise ValueError(
                "must be 'auto' or a mapping such as {dp: 8, zero: 3, tp: 1}; "
                f"not {node.text[:40]!r}"
            )
        return _wrapped("auto", Mapping((), node.line))
    if isinstance(node, Mapping) and not {"auto", "explicit"} & set(node.keys):
        return _wrapped("explicit", node)
    return node


def _machine(node: Node) -> Node:
    """A machine by model alone, or under a name without its prefix."""
    if isinstance(node, Scalar):
        node = _wrapped("model", node)
    if not isinstance(node, Mapping):
        return node
    said = {entry.key: entry.value for entry in node.entries}
    name = said.get("name", said.get("model"))
    if not isinstance(name, Scalar) or name.text.startswith(_MACHINE_PREFIX):
        return node
    full = Entry(
        "name", Scalar(_MACHINE_PREFIX + name.text, quoted=True, line=name.line), name.line
    )
    return Mapping((full, *(e for e in node.entries if e.key != "name")), node.line)


def _json_message(node: Node, folder: Path) -> Node:
    if isinstance(node, Scalar):
        text = node.text if node.text.lstrip().startswith("{") else None
        text = text if text is not None else read_json_object(node.text, folder)
        return _wrapped("json", Scalar(text, quoted=True, line=node.line))
    if isinstance(node, Mapping) and "json" not in node.keys:
        return _wrapped("json", Scalar(json_text(node), quoted=True, line=node.line))
    return node


def _stored(node: Scalar, folder: Path) -> Mapping:
    """The tensors of weight files, equal ones in one entry, and the configuration beside them."""
    line = node.line
    tensors = []
    for stored in read_model(node.text, folder):
        values: dict[str, Node] = {
            "name": Scalar(stored.name, quoted=True, line=line),
            "dtype": Scalar(stored.dtype.lower().replace("_", "-"), quoted=True, line=line),
            "shape": Sequence(tuple(Scalar(str(n), False, line) for n in stored.shape), line),
            "stored_bytes": Scalar(str(stored.stored_bytes), quoted=False, line=line),
            "count": Scalar(str(stored.count), quoted=False, line=line),
        }
        entries = tuple(Entry(key, value, line) for key, value in values.items())
        tensors.append(Mapping(entries, line))
    made = [Entry("tensors", Sequence(tuple(tensors), line), line)]
    config = beside(node.text, folder)
    if config is not None:
        text = Scalar(read_json_object(str(config), folder), quoted=True, line=line)
        made.append(Entry("hf_config", _wrapped("json", text), line))
    return Mapping(tuple(made), line)


def _wrapped(field: str, node: Node) -> Mapping:
    return Mapping((Entry(field, node, node.line),), node.line)


def json_text(node: Node) -> str:
    """A node as JSON text, its plain scalars read as JSON reads them."""
    return json.dumps(_plain(node), sort_keys=False)


def _plain(node: Node) -> Any:
    if isinstance(node, Mapping):
        return {entry.key: _plain(entry.value) for entry in node.entries}
    if isinstance(node, Sequence):
        return [_plain(item) for item in node.items]
    if node.quoted:
        return node.text
    return _plain_scalar(node)


def _plain_scalar(scalar: Scalar) -> Any:
    if scalar.is_null:
        return None
    if scalar.text in ("true", "false"):
        return scalar.text == "true"
    try:
        value = number(scalar.text)
    except ValueError:
        return scalar.text
    whole = not set(scalar.text) & set(".eE")
    return int(value) if whole else float(value)
