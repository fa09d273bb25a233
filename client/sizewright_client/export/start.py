"""What starts the job on a node: the launcher's own command, for forms that run something."""

from __future__ import annotations

from sizewright_client.export.engines import sglang, vllm
from sizewright_client.export.launchers import HEAD_NODE, torchrun
from sizewright_client.export.ledger import Ledger
from sizewright_client.export.megatron import megatron
from sizewright_client.export.selection import ExportError, Selection

ENGINES = {"vllm": vllm, "sglang": sglang}
#: In front of a setting that a script of the asker's own makes.
SIZED = "# sized with"
#: Where the first node of a Ray cluster listens, as Ray's own documentation has it.
RAY_PORT = 6379
#: What makes glibc give freed memory back.
GIVES_BACK = ("MALLOC_MMAP_THRESHOLD_=65536", "MALLOC_TRIM_THRESHOLD_=65536")


def start(selection: Selection, head: str = HEAD_NODE) -> str:
    """The command, with its remarks; `head` is where several nodes find the first one.

    A run that no launcher can express starts a script of the asker's own; the reason stands above
    it, and every setting the script must make.
    """
    try:
        text = _launched(selection)
    except ExportError as error:
        text = _own_script(selection, "train.py", f"# {error}")
    return text.replace(HEAD_NODE, head)


def _launched(selection: Selection) -> str:
    work = selection.workload
    run = work.WhichOneof("run")
    if run == "fit":
        return _own_script(selection, "fit.py")
    if run == "inference":
        engine = ENGINES.get(work.inference.engine)
        if engine is None:
            return _own_script(selection, "infer.py")
        across = engine is vllm and selection.plan.node_count > 1
        return _over_ray(selection) if across else engine(selection)
    if work.framework not in ("", "pytorch"):
        return _own_script(selection, "train.py")
    if selection.plan.layout.implementation == "megatron":
        return megatron(selection)
    return torchrun(selection)


def _over_ray(selection: Selection) -> str:
    """vLLM on the first of several nodes, once all of them are one Ray cluster."""
    lines = vllm(selection).splitlines()
    remarks = [line for line in lines if line.startswith("#")]
    nodes = selection.plan.node_count
    alive = f'import ray; ray.init("auto"); exit(sum(n["Alive"] for n in ray.nodes()) < {nodes})'
    return "\n".join(
        [
            *remarks,
            'if [ "$NODE_RANK" = 0 ]; then',
            f"  ray start --head --port={RAY_PORT}",
            f"  until python3 -c '{alive}'; do sleep 5; done",
            *(f"  {line}" for line in lines[len(remarks) :]),
            "else",
            f"  until ray start --address={HEAD_NODE}:{RAY_PORT}; do sleep 5; done",
            "  sleep infinity",
            "fi",
            "",
        ]
    )


def _own_script(selection: Selection, script: str, *remarks: str) -> str:
    """A script under every setting that was sized, and in the environment that it needs."""
    work = selection.workload
    run = work.WhichOneof("run") or ""
    said = Ledger(run, getattr(work, run))
    environment = []
    if run == "fit":
        if said.peek("threads"):
            environment.append(f"OMP_NUM_THREADS={said.take('threads')}")
        if said.take("returns_freed_memory"):
            environment += GIVES_BACK
    settings = [*said.left(), *_layout(selection)]
    settings += Ledger("model.estimator", work.model.estimator).left()
    settings += [*Ledger("dataset", work.dataset).left(), *Ledger("host", work.host).left()]
    lines = [*remarks, *(f"{SIZED} {one}" for one in settings)]
    return "\n".join([*lines, " ".join([*environment, "python", script]), ""])


def _layout(selection: Selection) -> list[str]:
    """The sizes of a layout of several GPUs, which the script sets up itself."""
    layout = selection.plan.layout
    sizes = {name: getattr(layout, name) for name in ("dp", "zero", "tp", "pp", "cp", "ep")}
    if layout.gpus == 1:
        return []
    return [f"layout.{name}: {size}" for name, size in sizes.items() if size > 1 or name == "dp"]
