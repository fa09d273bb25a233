"""`sizewright estimate`, `recommend` and `check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sizewright_client.cli.connection import Connection
from sizewright_client.cli.exit_codes import EXIT_CODES_HELP, ExitCode
from sizewright_client.cli.failures import UsageError, reported
from sizewright_client.cli.machines import PREFIX, owned_machine
from sizewright_client.cli.options import (
    CaFileOption,
    DevicesOption,
    ExplainOption,
    HeadroomOption,
    MaxCostOption,
    MaxInterruptionOption,
    MaxNodesOption,
    MaxPriceAgeOption,
    MinDiskOption,
    MinNetworkOption,
    ObjectiveOption,
    Output,
    OutputOption,
    ProvidersOption,
    PurchaseOption,
    RegionsOption,
    RequestFile,
    ServerOption,
    TechniquesOption,
    TimeoutOption,
    TlsOption,
    TokenFileOption,
    TopOption,
)

if TYPE_CHECKING:
    from sizewright.v1 import catalog_pb2, sizing_service_pb2
    from sizewright_client.cli.overrides import Options

LOCAL = "local"
AdviseOption = Annotated[
    bool, typer.Option("--advise", help="Also say what would change the answer.")
]
LocalOption = Annotated[
    bool, typer.Option("--local/--no-local", help="Rank this machine beside the offers.")
]
OnOption = Annotated[
    str,
    typer.Option(
        metavar="MACHINE",
        help="local, aws/p5.48xlarge, a type's full name, machines/NAME, or a model.",
    ),
]
NodesOption = Annotated[int, typer.Option(min=1, metavar="N", help="How many such machines.")]
LimitsOption = Annotated[
    bool,
    typer.Option(
        "--advise/--no-advise",
        help="Also find the largest batch that fits, and the smallest change that does.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command(epilog=EXIT_CODES_HELP)(estimate)
    app.command(epilog=EXIT_CODES_HELP)(recommend)
    app.command(epilog=EXIT_CODES_HELP)(check)


@reported
def estimate(
    file: RequestFile,
    output: OutputOption = Output.TABLE,
    explain: ExplainOption = False,
    gpus: Annotated[
        int, typer.Option(min=0, metavar="N", help="GPUs where the layout is auto; 0 means 1.")
    ] = 0,
    gpus_per_node: Annotated[
        int, typer.Option(min=0, metavar="N", help="Ranks on each node; 0 means up to 8.")
    ] = 0,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Count the runtime's overhead on this device.")
    ] = "",
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 10.0,
) -> ExitCode:
    """Tell what memory a workload takes, every byte explained.

    \b
    Examples:
      sizewright estimate job.yaml
      sizewright estimate job.yaml --gpus 8 --device H100-SXM --explain
      sizewright estimate - -o json < job.json | jq .estimate.pools
    """
    from sizewright.v1 import sizing_service_pb2
    from sizewright_client.cli.answers import emit_estimate
    from sizewright_client.request_file import load_request

    request = sizing_service_pb2.EstimateRequest(
        workload=load_request(file).workload,
        gpus=_int32(gpus, "--gpus"),
        gpus_per_node=_int32(gpus_per_node, "--gpus-per-node"),
        device=device,
    )
    with Connection(server, token_file, tls, ca_file, timeout).open() as client:
        answer = client.estimate(request)
    emit_estimate(answer, output, name=request.workload.name, explain=explain)
    return ExitCode.OK


@reported
def recommend(
    file: RequestFile,
    output: OutputOption = Output.TABLE,
    explain: ExplainOption = False,
    top: TopOption = None,
    provider: ProvidersOption = None,
    region: RegionsOption = None,
    purchase: PurchaseOption = None,
    device: DevicesOption = None,
    max_nodes: MaxNodesOption = None,
    max_cost: MaxCostOption = None,
    max_price_age: MaxPriceAgeOption = None,
    headroom: HeadroomOption = None,
    min_disk: MinDiskOption = None,
    max_interruption: MaxInterruptionOption = None,
    min_network: MinNetworkOption = None,
    technique: TechniquesOption = None,
    objective: ObjectiveOption = None,
    advise: AdviseOption = False,
    local: LocalOption = True,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 10.0,
) -> ExitCode:
    """Rank the machines on which a workload fits, cheapest first.

    Options take the place of the file's own constraints.

    \b
    Examples:
      sizewright recommend job.yaml
      sizewright recommend job.yaml --provider aws,gcp --purchase spot --max-nodes 2
      sizewright recommend job.yaml --technique exact --advise
      sizewright recommend job.yaml -o json | jq '.recommendations[0].offer.name'
      sizewright recommend job.yaml --server sizing.example:7443 --tls
    """
    from sizewright_client.cli.answers import emit_recommendations

    constraints: Options = {
        "providers": provider,
        "regions": region,
        "purchase": purchase,
        "devices": device,
        "max_nodes": max_nodes,
        "max_cost_per_hour": max_cost,
        "max_price_age": max_price_age,
        "headroom": headroom,
        "min_local_disk": min_disk,
        "max_interruption": max_interruption,
        "min_network_gbps": min_network,
    }
    goals: Options = {"techniques": technique, "objective": objective}
    request = _asked(file, constraints, goals, top=top, advise=advise, local=local)
    with Connection(server, token_file, tls, ca_file, timeout).open() as client:
        answer = client.recommend(request)
    emit_recommendations(answer, output, name=request.workload.name, explain=explain)
    return ExitCode.OK if answer.recommendations else ExitCode.NOTHING_FITS


@reported
def check(
    file: RequestFile,
    on: OnOption = LOCAL,
    nodes: NodesOption = 1,
    headroom: HeadroomOption = None,
    advise: LimitsOption = True,
    output: OutputOption = Output.TABLE,
    explain: ExplainOption = False,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    tls: TlsOption = False,
    ca_file: CaFileOption = None,
    timeout: TimeoutOption = 10.0,
) -> ExitCode:
    """Tell whether a workload fits a given machine.

    That is this machine, unless --on names a type of the catalog, a machine that is registered, or
    a model of the library of machines.

    \b
    Examples:
      sizewright check job.yaml
      sizewright check job.yaml --on dgx-spark
      sizewright check job.yaml --on aws/p5.48xlarge --nodes 2
      sizewright check job.yaml --on aws/g5.xlarge --no-advise
      sizewright check job.yaml --on providers/gcp/instanceTypes/a3-highgpu-8g -o json
    """
    from sizewright.v1 import plan_pb2, sizing_service_pb2
    from sizewright_client.cli.answers import emit_check
    from sizewright_client.cli.overrides import override
    from sizewright_client.request_file import load_request

    whole = load_request(file)
    override(whole, {"headroom": headroom})
    request = sizing_service_pb2.CheckFitRequest(
        workload=whole.workload,
        node_count=_int32(nodes, "--nodes"),
        headroom=whole.constraints.headroom,
        advise=advise,
    )
    if on == LOCAL:
        request.machine.CopyFrom(_this_machine())
    elif on.startswith("providers/") or ("/" in on and not on.startswith(PREFIX)):
        request.instance_type = instance_type_name(on)
    with Connection(server, token_file, tls, ca_file, timeout).open() as client:
        if request.WhichOneof("target") is None:
            request.machine.CopyFrom(owned_machine(client, on))
        answer = client.check_fit(request)
    emit_check(answer, output, target=on, node_count=nodes, explain=explain)
    return ExitCode.NOTHING_FITS if answer.verdict == plan_pb2.VERDICT_NO else ExitCode.OK


def instance_type_name(written: str) -> str:
    """The resource name of a type written in full or as {provider}/{type}."""
    if written.startswith("providers/"):
        return written
    provider, slash, kind = written.partition("/")
    if not (provider and slash and kind):
        raise UsageError(
            f"{written!r} is no type; say {{provider}}/{{type}} such as aws/p5.48xlarge, or a "
            "full name such as providers/aws/instanceTypes/p5.48xlarge"
        )
    return f"providers/{provider}/instanceTypes/{kind}"


def _asked(
    file: str,
    constraints: Options,
    goals: Options,
    *,
    top: int | None,
    advise: bool,
    local: bool,
) -> sizing_service_pb2.RecommendRequest:
    """The file's request, with what options said in place of its own; `local`: on this machine
    as well."""
    from sizewright_client.cli.overrides import override, override_root
    from sizewright_client.request_file import load_request

    request = load_request(file)
    override(request, constraints)
    override_root(request, goals)
    request.advise = advise or request.advise
    request.max_results = request.max_results if top is None else top
    if local:
        request.machines.append(_this_machine())
    return request


def _this_machine() -> catalog_pb2.Machine:
    from sizewright_client.embedded import local_machine

    return local_machine()


def _int32(value: int, option: str) -> int:
    if value >= 2**31:
        raise UsageError(f"{option} {value} is out of range; the largest is {2**31 - 1}")
    return value
