"""Writes the Python code of the contract: `python proto/generate.py OUT_DIR`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parent


def main() -> int:
    """Generates messages, services and types of every proto file; returns protoc's status."""
    out = Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    sources = sorted(str(path) for path in (ROOT / "sizewright").rglob("*.proto"))
    well_known = Path(protoc.__file__).parent / "_proto"
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"-I{well_known}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *sources,
        ]
    )
    for folder in (out / "sizewright", out / "sizewright" / "v1"):
        (folder / "__init__.py").touch()
    (out / "sizewright" / "py.typed").touch()
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
