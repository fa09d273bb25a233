"""`sizewright catalog iam-policy` and `sizewright catalog overrides`: what the catalog asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sizewright_client.cli.exit_codes import EXIT_CODES_HELP, ExitCode
from sizewright_client.cli.failures import UsageError, reported

if TYPE_CHECKING:
    from sizewright_catalog.overrides import Overrides


def register(app: typer.Typer) -> None:
    """Add the commands to `sizewright catalog`."""
    app.command("iam-policy", epilog=EXIT_CODES_HELP)(iam_policy)
    app.command(epilog=EXIT_CODES_HELP)(overrides)


@reported
def iam_policy(
    provider: Annotated[str, typer.Option(help="aws or gcp.")] = "aws",
    placement_scores: Annotated[
        bool, typer.Option("--placement-scores", help="Also allow spot placement scores (aws).")
    ] = False,
) -> ExitCode:
    """Print the least that a refresh must be allowed, ready to hand to the provider.

    \b
    Examples:
      sizewright catalog iam-policy > policy.json
      aws iam create-policy --policy-name sizewright --policy-document file://policy.json
      sizewright catalog iam-policy --provider gcp > role.json
      gcloud iam roles create sizewright --project PROJECT --file role.json
    """
    from sizewright_client.cli.streams import emit

    emit(json.dumps(_policy(provider, placement_scores), indent=2) + "\n")
    return ExitCode.OK


def _policy(provider: str, placement_scores: bool) -> dict[str, Any]:
    if provider == "aws":
        from sizewright_catalog.providers.aws.policy import policy

        return policy(placement_scores=placement_scores)
    if provider == "gcp":
        from sizewright_catalog.providers.gcp.policy import role

        if placement_scores:
            raise UsageError("--placement-scores is for aws")
        return role()
    raise UsageError(f"--provider {provider!r} has no policy; known: aws, gcp")


@reported
def overrides(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Price overrides, YAML or JSON.")],
) -> ExitCode:
    """Check a file of price overrides, and show what each rule would change today.

    \b
    Examples:
      sizewright catalog overrides prices.yaml
      SIZEWRIGHT_PRICE_OVERRIDES=prices.yaml sizewright recommend job.yaml
    """
    from sizewright_catalog.overrides import OverridesError, read_overrides
    from sizewright_client.cli.streams import emit, say

    try:
        rules = read_overrides(file)
    except OverridesError as error:
        for problem in error.problems:
            say(f"sizewright: {problem}")
        return ExitCode.INVALID_REQUEST
    emit(_shown(rules))
    return ExitCode.OK


def _shown(rules: Overrides) -> str:
    """One line per rule: what it is about, from when to when, and an example."""
    from datetime import UTC, datetime

    from sizewright_catalog.home import default_home
    from sizewright_catalog.money import dollars
    from sizewright_catalog.overrides.apply import effects
    from sizewright_catalog.published import serve_from
    from sizewright_client.render.figures import count, printable

    catalog, today = serve_from(default_home()).catalog, datetime.now(tz=UTC).date()
    lines = []
    for effect in effects(catalog, rules, today):
        head = f"{effect.rule}: {count(effect.offer_count)} offers"
        if not effect.in_force:
            head += ", not in force today"
        lines.append(head)
        if effect.example:
            change = f"{dollars(effect.listed_nanos)} to {dollars(effect.override_nanos)} an hour"
            lines.append(f"  such as {printable(effect.example)}: {change}")
    return "".join(f"{line}\n" for line in lines or ["no rule"])
