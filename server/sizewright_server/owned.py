"""Owned machines: registering, listing and forgetting them, and the library of models."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from google.protobuf.message import Message

from sizewright.v1 import catalog_service_pb2 as pb
from sizewright_catalog.home import Home
from sizewright_catalog.owned.documents import MACHINES, machine_document, read_machines
from sizewright_catalog.owned.library import models
from sizewright_catalog.published import PublishedError, read_published
from sizewright_catalog.values import Machine
from sizewright_server import failures
from sizewright_server.estimation.problems import Violation
from sizewright_server.service import Sizing
from sizewright_server.wire.machine_messages import machine_message, model_message
from sizewright_server.wire.owned_machines import read_machine
from sizewright_server.wire.paging import page
from sizewright_server.wire.violations import RequestInvalid

if TYPE_CHECKING:
    from sizewright_catalog.store import Store

PREFIX = "machines/"
#: The machine a profile makes; it is of this moment and is not kept.
LOCAL = "machines/local"
#: Machines that a home keeps: each is tried by every question.
MOST_MACHINES = 1000


def list_machines(app: Sizing, request: pb.ListMachinesRequest) -> Message:
    """A page of the machines that are registered, by name."""
    found = () if app.home is None else registered(app.home)
    names = [machine.name for machine in found]
    positions = np.arange(len(found))
    rows, token = page(positions, request.page_size, request.page_token, "machines", names)
    return pb.ListMachinesResponse(
        machines=[machine_message(found[i]) for i in rows], next_page_token=token
    )


def register_machine(app: Sizing, request: pb.RegisterMachineRequest) -> Message:
    """Keeps a machine, in the place of one of that name; or says what it would be."""
    problems: list[Violation] = []
    machine = read_machine(request.machine, "machine", problems)
    if request.machine.name == LOCAL:
        words = f"{LOCAL!r} is the machine a profile is of; give it a name of its own"
        problems.append(Violation("machine.name", words))
    if machine is None or problems:
        raise RequestInvalid(problems)
    home = _home(app)
    names = {one.name for one in registered(home)}
    replaced = machine.name in names
    if not replaced and len(names) >= MOST_MACHINES:
        raise RequestInvalid([Violation("machine", f"{MOST_MACHINES} are registered already")])
    if request.validate_only:
        return pb.RegisterMachineResponse(machine=machine_message(machine), replaced=replaced)
    with _stored(app, home) as store:
        store.put_document(MACHINES, machine.name, machine_document(machine))
    return pb.RegisterMachineResponse(machine=machine_message(machine), replaced=replaced)


def delete_machine(app: Sizing, request: pb.DeleteMachineRequest) -> Message:
    """Forgets a machine."""
    home = _home(app)
    if not request.name.startswith(PREFIX):
        raise RequestInvalid([Violation("name", f"must be of the form {PREFIX}NAME")])
    with _stored(app, home) as store:
        found = store.delete_document(MACHINES, request.name)
    if not found:
        near = difflib.get_close_matches(request.name, [m.name for m in registered(home)], n=3)
        hint = f"; near: {', '.join(near)}" if near else ""
        message = f"no machine {request.name!r} is registered{hint}"
        raise failures.not_found(message, "Machine", request.name)
    return pb.DeleteMachineResponse()


def list_models(app: Sizing, request: pb.ListMachineModelsRequest) -> Message:
    """The library, or the models with a text in their name."""
    words = request.filter.lower()
    found = [model for name, model in models().items() if words in name]
    return pb.ListMachineModelsResponse(models=[model_message(model) for model in found])


def registered(home: Home) -> tuple[Machine, ...]:
    """The machines of a home as they are now. Raises CallFailed when they cannot be read."""
    try:
        published = read_published(home)
    except PublishedError as error:
        raise failures.store_broken(str(error)) from error
    return read_machines(published.documents)[0] if published else ()


def _home(app: Sizing) -> Home:
    if app.home is None:
        raise failures.fixed_catalog()
    return app.home


@contextmanager
def _stored(app: Sizing, home: Home) -> Iterator[Store]:
    from sizewright_catalog.store import Store, StoreError

    try:
        store = Store(home, app.store_url)
        try:
            yield store
        finally:
            store.close()
    except StoreError as error:
        raise failures.store_broken(str(error)) from error
