"""Names of N1 machines with GPUs attached, such as "n1-standard-8+nvidia-tesla-t4x1".

Google sells a machine type and an accelerator; together they are one type here.
"""

from __future__ import annotations


def attached_name(machine: str, accelerator: str, count: int) -> str:
    """The name of a machine type with GPUs attached."""
    return f"{machine}+{accelerator}x{count}"


def parts(type_name: str) -> tuple[str, str, int]:
    """Machine type, accelerator and number of one; an empty accelerator where none is attached."""
    machine, plus, attached = type_name.partition("+")
    accelerator, x, count = attached.rpartition("x")
    if not (plus and x and count.isdigit()):
        return type_name, "", 0
    return machine, accelerator, int(count)
