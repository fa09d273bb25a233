"""N1 machines with GPUs attached: a machine type and an accelerator, sold as two.

They are types of their own here, so that they can be sized and ranked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from sizewright_catalog.providers.gcp.knowledge import knowledge
from sizewright_catalog.providers.gcp.machines import Machine
from sizewright_catalog.providers.gcp.names import attached_name


def with_gpus(plain: Machine, having: Mapping[str, Mapping[str, int]]) -> Iterator[Machine]:
    """The machines that a plain one makes with GPUs, each in the zones that have both.

    `having` is the most cards of an instance by accelerator and zone.
    """
    rules = knowledge().attachable
    if plain.accelerator or not plain.name.startswith(rules.series):
        return
    for accelerator, most_vcpus in rules.most_vcpus.items():
        for count, vcpus in most_vcpus.items():
            zones = {
                region: [z for z in names if having.get(accelerator, {}).get(z, 0) >= count]
                for region, names in plain.zones.items()
            }
            zones = {region: names for region, names in zones.items() if names}
            if plain.vcpus <= vcpus and zones:
                yield replace(
                    plain,
                    name=attached_name(plain.name, accelerator, count),
                    accelerator=accelerator,
                    accelerator_count=count,
                    zones=zones,
                )
