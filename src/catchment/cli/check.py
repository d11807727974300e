"""``catchment check``: what stands in the way, before it does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from catchment.cli.entry import DEFAULT_CONFIG, FAILED, Config
from catchment.config import Settings, SourceSettings, load
from catchment.hub.lock import held, see_usable
from catchment.model.errors import CatchmentError, HubError

if TYPE_CHECKING:
    from catchment.log.base import Log
    from catchment.postgres.finding import Finding
    from catchment.postgres.preflight import Hub

_AT_ONCE = 8


def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Sources; all when none is named.")] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON array.")] = False,
) -> None:
    """See whether sources, the ODS and the lake are ready.

    For each obstacle it prints the statement or the setting that removes it. Errors end it with status 1; warnings and
    notices say what is good to know.

    Example: catchment check orders
    """
    from catchment.assembly import read_dsns

    settings = load(config)
    sources = [settings.one(name) for name in names] if names else list(settings.source)
    read_dsns(settings, sources)
    findings = list(_findings(settings, sources))
    if as_json:
        typer.echo(json.dumps([finding.to_json() for finding in findings], indent=2))
    else:
        from catchment.cli.findings import show

        show(findings)
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(FAILED)


def _findings(settings: Settings, sources: Sequence[SourceSettings]) -> Iterator[Finding]:
    """Each server on its own, all at once, then what only shows when they are compared."""
    from catchment.assembly import build_log, build_source
    from catchment.postgres.preflight import Report, check_source, check_together
    from catchment.postgres.preflight.report import UNUSABLE_STATE
    from catchment.targets.ods.preflight import check_ods

    running = False
    try:
        running = held(settings.hub.state)
        see_usable(settings.hub.state)
    except HubError as error:
        yield UNUSABLE_STATE.found("hub", what=error.what, remedy=error.remedy)

    def look(source: SourceSettings) -> Report:
        try:
            hub = _hub(log, source.name, running)
        except CatchmentError as error:
            return Report().broken_off(error, f"source {source.name}")
        return check_source(build_source(source), hub)

    with closing(build_log(settings)) as log, ThreadPoolExecutor(_AT_ONCE) as pool:
        reports = dict(zip((source.name for source in sources), pool.map(look, sources), strict=True))
    for report in reports.values():
        yield from report.findings
    yield from check_together({source.name: source.slot_name for source in sources}, reports)
    if settings.ods is not None:
        datasets = {source.name: source.name for source in settings.source}
        ods = check_ods(settings.ods.dsn, datasets, reports)
        yield from ods.findings
    if settings.lake is not None:
        from catchment.targets.lake.place import open_store
        from catchment.targets.lake.preflight import check_lake

        lake, tables = settings.lake, {name: each.tables for name, each in reports.items()}
        yield from check_lake(open_store(lake.uri, lake.options), lake.columns, tables)


def _hub(log: Log, source: str, running: bool) -> Hub:
    """What is known here of a source. Raises LogError."""
    from catchment.pipeline.state import Origin
    from catchment.postgres.preflight import Hub, Logged

    origin = Origin.of(log.state(source))
    if origin is None:
        return Hub(running)
    until = None
    if origin.snapshot is not None:
        last = log.wait(source, 0, 0).last
        ((frontier, _),) = log.read(source, last - 1, last)
        until = frontier.lsn
    return Hub(running, Logged(origin.system, origin.timeline, origin.publication, until))
