"""What the versions of libraries say of a run on a GPU."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sizewright_server.estimation.cuda import release_of, releases
from sizewright_server.estimation.problems import Violation
from sizewright_server.estimation.runtime import KernelLoading

#: First versions that load CUDA kernels as they are used (PyTorch sets CUDA_MODULE_LOADING itself).
FIRST_LAZY = {"cuda": (11, 7), "torch": (1, 13)}
#: Other names of the two libraries that are read.
_ALIASES = {"pytorch": "torch", "cudatoolkit": "cuda", "cuda-toolkit": "cuda"}
_VERSION = re.compile(r"\d{1,9}(\.\d{1,9})+([.+a-z]\S*)?", re.ASCII)
#: What a PyTorch wheel was built for, in its local version: "2.4.0+cu121" (pytorch.org's index).
_BUILD = re.compile(r"\+(cu\d{2,3}|cpu|rocm|xpu)", re.ASCII)


def kernel_loading(versions: Mapping[str, str]) -> KernelLoading | None:
    """How kernels are loaded, from the version of CUDA, or else of PyTorch."""
    cuda = cuda_release(versions)
    for library, text in (("cuda", cuda), ("torch", versions.get("torch", ""))):
        if text:
            major, minor = text.split(".")[:2]
            number = int(major), int(re.split(r"\D", minor)[0])
            return "lazy" if number >= FIRST_LAZY[library] else "eager"
    return None


def cuda_release(versions: Mapping[str, str]) -> str:
    """The release of CUDA, such as "12.4", stated or PyTorch's build's; empty where none is."""
    return release_of(versions.get("cuda", "")) or _cuda_of(_build(versions))


def wrong_versions(versions: Mapping[str, str], path: str) -> Iterator[Violation]:
    """Versions that are none, releases of CUDA that are not known, and two that do not agree."""
    for name in versions:
        meant = _ALIASES.get(name.lower(), name.lower())
        if meant in FIRST_LAZY and name != meant:
            yield Violation(f"{path}[{name[:40]}]", f"is not read; say {meant!r}")
    wrong = {name for name in FIRST_LAZY if not _VERSION.fullmatch(versions.get(name, "0.0"))}
    for library in sorted(wrong):
        words = f"{versions[library][:40]!r} is no version such as '12.4'"
        yield Violation(f"{path}[{library}]", words)
    build = "" if "torch" in wrong else _build(versions)
    stated = "" if "cuda" in wrong else release_of(versions.get("cuda", ""))
    built = _cuda_of(build)
    if build == "rocm":
        words = "is of ROCm, which is not built; without it AMD's GPUs are sized as they are"
        yield Violation(f"{path}[torch]", words)
    for library, release in (("cuda", stated), ("torch", built)):
        if release and release not in releases():
            text = versions[library][:40]
            words = f"{text!r} is no known release of CUDA; known are {', '.join(releases())}"
            yield Violation(f"{path}[{library}]", words)
    if stated and built and stated != built:
        words = (
            f"{stated} is not the CUDA {built} that torch {versions['torch'][:40]} is built with"
        )
        yield Violation(f"{path}[cuda]", words)
    elif stated and build in ("cpu", "xpu"):
        words = f"torch {versions['torch'][:40]} is built without CUDA"
        yield Violation(f"{path}[cuda]", words)


def without_gpu(versions: Mapping[str, str], path: str) -> Iterator[Violation]:
    """A build of PyTorch that runs on no GPU that is offered."""
    if _build(versions) in ("cpu", "xpu"):
        words = f"{versions['torch'][:40]!r} is built without CUDA; say accelerator 'cpu'"
        yield Violation(f"{path}[torch]", words)


def _build(versions: Mapping[str, str]) -> str:
    """What PyTorch is built for: "cu121", "cpu", "rocm", "xpu"; empty where it is not said."""
    found = _BUILD.search(versions.get("torch", ""))
    return found[1] if found else ""


def _cuda_of(build: str) -> str:
    """ "12.1" of "cu121": the last digit is the minor release."""
    return f"{build[2:-1]}.{build[-1]}" if build.startswith("cu") else ""
