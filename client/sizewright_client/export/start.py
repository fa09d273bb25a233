"""What starts the job on a node: the launcher's own command, for forms that run something."""

from __future__ import annotations

from sizewright_client.export.engines import sglang, vllm
from sizewright_client.export.launchers import HEAD_NODE, torchrun
from sizewright_client.export.megatron import megatron
from sizewright_client.export.selection import ExportError, Selection

ENGINES = {"vllm": vllm, "sglang": sglang}


def start(selection: Selection, head: str = HEAD_NODE) -> str:
    """The command, with its remarks; `head` is where several nodes find the first one.

    A run that no launcher can express starts a script of the asker's own, and the reason stands
    beside it.
    """
    try:
        text = _launched(selection)
    except ExportError as error:
        text = f"# {error}\npython train.py\n"
    return text.replace(HEAD_NODE, head)


def _launched(selection: Selection) -> str:
    work = selection.workload
    run = work.WhichOneof("run")
    if run == "fit":
        return "python fit.py\n"
    if run == "inference":
        engine = ENGINES.get(work.inference.engine)
        return engine(selection) if engine else "python infer.py\n"
    if work.framework not in ("", "pytorch"):
        return "python train.py\n"
    if selection.plan.layout.implementation == "megatron":
        return megatron(selection)
    return torchrun(selection)
