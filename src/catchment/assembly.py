"""Settings to objects: the one place that knows all parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

from catchment.config import Settings, SourceSettings
from catchment.hub.sqlite import SqliteHub
from catchment.log.sqlite import SqliteLog
from catchment.model.errors import ConfigError
from catchment.pipeline.collector import Collector
from catchment.pipeline.deliver import Deliverer
from catchment.pipeline.session import Surroundings
from catchment.pipeline.status import LoopStatus, Stopping
from catchment.pipeline.worker import Hosted, Worker
from catchment.postgres.connection import read_dsn
from catchment.postgres.source import Source
from catchment.targets.base import Target, TargetReader
from catchment.targets.feed import FeedTarget
from catchment.targets.lake import LakeTarget
from catchment.targets.lake.place import open_store
from catchment.targets.lake.reading import LakeReader
from catchment.targets.ods import OdsTarget
from catchment.targets.ods.reading import OdsReader

LARGEST_FILE = 256 * 2**20


def build_source(settings: SourceSettings) -> Source:
    """Where this source is."""
    return Source(settings.name, settings.dsn, settings.publication, settings.slot_name, settings.backfill_readers)


def build_log(settings: Settings) -> SqliteLog:
    """The change log of all sources, in files small enough that trimming whole ones keeps to the limit."""
    return SqliteLog(settings.hub.state / "log", min(LARGEST_FILE, settings.log.max_bytes // 4))


def build_hub(settings: Settings) -> SqliteHub:
    """What people and processes tell each other."""
    return SqliteHub(settings.hub.database)


def build_targets(settings: Settings) -> list[Target]:
    """All targets, shared by the sources."""
    datasets = {source.name: source.name for source in settings.source}
    targets: list[Target] = [FeedTarget(feed.name, feed.path) for feed in settings.feed]
    if settings.ods is not None:
        targets.append(OdsTarget(settings.ods.dsn, datasets))
    if settings.lake is not None:
        store, cache = open_store(settings.lake.uri, settings.lake.options), settings.hub.state / "lake"
        targets.append(LakeTarget(store, cache, datasets, settings.lake.columns, keep=settings.lake.keep))
    return targets


def build_readers(settings: Settings, source: str) -> Iterator[AbstractContextManager[TargetReader]]:
    """What looks at the targets that hold rows of a source; each is opened when it is asked for."""
    if settings.ods is not None:
        yield OdsReader(settings.ods.dsn, source)
    if settings.lake is not None:
        yield LakeReader(open_store(settings.lake.uri, settings.lake.options), source)


def read_dsns(settings: Settings, sources: Iterable[SourceSettings]) -> None:
    """Raises ConfigError for one that libpq cannot read, with the place where it stands."""
    dsns = [(f"source {source.name}", source.dsn) for source in sources]
    for place, dsn in [*dsns, *([("ods", settings.ods.dsn)] if settings.ods else [])]:
        try:
            read_dsn(dsn)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error.what}", remedy=error.remedy) from None


def build_worker(settings: Settings, name: str, sources: Sequence[str]) -> Worker:
    """A worker with the loops of these sources. Raises ConfigError for a dsn that libpq cannot read."""
    read_dsns(settings, (source for source in settings.source if source.name in sources))
    log, hub, targets = build_log(settings), build_hub(settings), build_targets(settings)

    def host(source: Source) -> Hosted:
        stopping = Stopping()
        around = Surroundings(
            source=source,
            targets=tuple(target.name for target in targets),
            log=log,
            hub=hub,
            worker=name,
            held=settings.hub.state / "held" / source.name,
            status=LoopStatus(source.name),
        )
        return Hosted(
            source=source,
            status=around.status,
            collector=Collector(around, stopping),
            deliverers=[Deliverer(source.name, target, log, hub, stopping) for target in targets],
            stopping=stopping,
        )

    def close() -> None:
        for target in targets:
            target.close()
        log.close()
        hub.close()

    # A source that was taken out of catchment.toml while the hub runs is not missed when its worker is started again.
    hosted = [host(build_source(source)) for source in settings.source if source.name in sources]
    return Worker(name, hosted, log, hub, settings.log.max_bytes, close)
