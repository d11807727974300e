"""``catchment check``: what stands in the way, before it does."""

from __future__ import annotations

from typing import Annotated

import typer

from catchment.cli.entry import DEFAULT_CONFIG, FAILED, Config
from catchment.config import load


def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Sources; all when none is named.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """See whether sources and the ODS are ready.

    For each obstacle it prints the statement or the setting that removes it.

    Example: catchment check orders
    """
    from catchment.assembly import build_source
    from catchment.postgres.preflight import check_ods, check_source

    settings = load(config)
    sources = [settings.one(name) for name in names] if names else settings.source
    failed = False
    reports = [check_source(build_source(source)) for source in sources]
    if settings.ods is not None:
        reports.append(check_ods(settings.ods.dsn, [source.name for source in settings.source]))
    for finding in (finding for report in reports for finding in report):
        typer.echo(str(finding))
        failed = failed or finding.level == "error"
    if failed:
        raise typer.Exit(FAILED)
