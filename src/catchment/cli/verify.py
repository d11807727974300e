"""``catchment verify``: are source and targets equal?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from catchment.cli.entry import DEFAULT_CONFIG, FAILED, Config, Source, Tables
from catchment.cli.repair import repair
from catchment.config import Settings, SourceSettings, load
from catchment.hub.lock import held
from catchment.model.errors import ConfigError

if TYPE_CHECKING:
    from catchment.cli.verdicts import Verdicts
    from catchment.pipeline.verify import TableReport, Verification


def verify(
    name: Source,
    tables: Tables = None,
    config: Config = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object, with all keys.")] = False,
    mend: Annotated[
        bool, typer.Option("--repair", help="Read again what differs, through the log, and compare it once more.")
    ] = False,
) -> None:
    """Compare a source with the ODS and the lake, row by row, at the same position, while all go on.

    Prints the position at which they were shown to be equal, and the keys of rows that are not: mind who reads them. It
    reads a little at a time and leaves the source as much time as it takes. The hub should run: without it, rows that
    were not delivered yet cannot be verified. Ends with status 1 unless every row is equal.

    Example: catchment verify orders public.customers
    """
    from catchment.cli.verdicts import Verdicts

    settings = load(config)
    source = settings.one(name)
    reports: list[TableReport] = []
    with _verifications(settings, source) as verifications, Verdicts(quiet=as_json) as shown:
        for verification in verifications:
            found = list(_compared(verification, tables or (), shown))
            if mend and (different := [report for report in found if report.state == "different"]):
                for report in different:
                    shown.line(f"{report.table}: {repair(settings, source.name, report)}")
                names = [each.table for each in different]
                again = {report.table: report for report in _compared(verification, names, shown)}
                found = [again.get(report.table, report) for report in found]
            reports += found
    if as_json:
        told = {"source": source.name, "tables": [report.to_json() for report in reports]}
        typer.echo(json.dumps(told))
    else:
        shown.summary(reports)
    if any(report.state != "equal" for report in reports):
        raise typer.Exit(FAILED)


def _compared(verification: Verification, tables: Sequence[str], shown: Verdicts) -> Iterator[TableReport]:
    for report in verification.run(verification.tables(tables), shown.progress):
        shown.report(report)
        yield report


@contextmanager
def _verifications(settings: Settings, source: SourceSettings) -> Iterator[list[Verification]]:
    """One of each target that holds rows."""
    from catchment.assembly import build_log, build_readers, build_source
    from catchment.pipeline.verify import Verification
    from catchment.postgres.reading import SourceReader

    if settings.ods is None and settings.lake is None:
        raise ConfigError(
            "there is no target to compare with",
            remedy="add [ods] with a dsn, or [lake] with a uri: feeds hold no rows",
        )
    place = build_source(source)
    with ExitStack() as opened:
        log = opened.enter_context(closing(build_log(settings)))
        reader = opened.enter_context(SourceReader(place))
        targets = [opened.enter_context(target) for target in build_readers(settings, source.name)]
        yield [Verification(place, reader, target, log, lambda: held(settings.hub.state)) for target in targets]
