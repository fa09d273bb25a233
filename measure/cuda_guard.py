"""Loads the idle CUDA guard; has to be imported before torch, which asks for its hooks only once.

Compiled on first use into ``MEASURE_CACHE`` (default ``~/.cache/measure``), once per torch build
and guard source.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
import zlib
from importlib.metadata import version
from pathlib import Path


def torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torch is not installed here: see the README beside this file")
    return Path(spec.origin).parent


def build(torch_root: Path) -> Path:
    """The compiled guard of this torch, made if missing."""
    source = Path(__file__).with_suffix(".cpp")
    tag = zlib.crc32(source.read_bytes() + version("torch").encode() + str(torch_root).encode())
    folder = Path(os.environ.get("MEASURE_CACHE", Path.home() / ".cache" / "measure"))
    library = folder / f"cuda_guard-{tag:08x}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_suffix(f".{os.getpid()}")
        command = ["g++", "-std=c++20", "-O1", "-shared", "-fPIC", f"-I{torch_root / 'include'}"]
        command += [str(source), f"-L{torch_root / 'lib'}", "-ltorch_cpu", "-lc10"]
        subprocess.run([*command, "-o", str(unfinished)], check=True)
        unfinished.rename(library)
    return library


def load() -> None:
    """Registers the guard with the torch that will be imported."""
    if "torch" in sys.modules:
        raise ImportError("import cuda_guard before torch: torch has already looked for CUDA")
    root = torch_folder()
    ctypes.CDLL(str(root / "lib" / "libtorch_cpu.so"), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(build(root)))


load()
