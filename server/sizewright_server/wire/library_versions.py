"""What the versions of libraries say of a run on a GPU."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sizewright_server.estimation.cuda import release_of, releases
from sizewright_server.estimation.problems import Violation
from sizewright_server.estimation.runtime import KernelLoading

#: First versions that load CUDA kernels as they are used (PyTorch sets CUDA_MODULE_LOADING itself).
FIRST_LAZY = {"cuda": (11, 7), "torch": (1, 13)}
_VERSION = re.compile(r"\d+(\.\d+)+([.+a-z]\S*)?", re.ASCII)


def kernel_loading(versions: Mapping[str, str]) -> KernelLoading | None:
    """How kernels are loaded, from the version of CUDA, or else of PyTorch."""
    for library, first in FIRST_LAZY.items():
        if library in versions:
            major, minor = versions[library].split(".")[:2]
            number = int(major), int(re.split(r"\D", minor)[0])
            return "lazy" if number >= first else "eager"
    return None


def cuda_release(versions: Mapping[str, str]) -> str:
    """The release of CUDA, such as "12.4"; empty where none is stated."""
    return release_of(versions.get("cuda", ""))


def wrong_versions(versions: Mapping[str, str], path: str) -> Iterator[Violation]:
    """Versions that are none, and those of CUDA that are not known."""
    for library in FIRST_LAZY:
        text = versions.get(library)
        if text is not None and not _VERSION.fullmatch(text):
            yield Violation(f"{path}[{library}]", f"{text[:40]!r} is no version such as '12.4'")
        elif library == "cuda" and text and release_of(text) not in releases():
            words = f"{text[:40]!r} is no known release of CUDA; known are {', '.join(releases())}"
            yield Violation(f"{path}[cuda]", words)
