"""catchment.toml, read into frozen settings."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from catchment.fields import (
    OBJECT_STORES,
    Address,
    Decimal,
    Dsn,
    Duration,
    FeedPath,
    LakeUri,
    Mistake,
    Name,
    Option,
    SlotName,
)
from catchment.model.errors import ConfigError


class Section(BaseModel):
    """A table of catchment.toml. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HubSettings(Section):
    """``[hub]``"""

    state: Path = Field(
        default=Path("var"),
        description="directory of logs and status, relative to catchment.toml; one hub each",
        examples=['"var"'],
    )

    @property
    def database(self) -> Path:
        """Where requests and statuses are kept."""
        return self.state / "hub.sqlite"


class LogSettings(Section):
    """``[log]``"""

    max_bytes: int = Field(
        default=10 * 2**30,
        ge=2**20,
        description="most bytes kept for each source; a target further behind is refilled later",
        examples=["10737418240"],
    )


class SourceSettings(Section):
    """``[[source]]``"""

    name: Name = Field(
        description="a-z, 0-9 and single _, at most 30 characters; its schema in the ODS is called so too",
        examples=['"orders"'],
    )
    dsn: Dsn = Field(
        description="anything libpq takes; a role with REPLICATION and SELECT on what is published",
        examples=['"host=orders-db dbname=orders user=catchment"'],
    )
    publication: str = Field(
        default="catchment",
        min_length=1,
        description="which tables, columns and rows the source shares",
        examples=['"catchment"'],
    )
    slot: SlotName = Field(
        default="",
        description="the replication slot; default: `catchment_` and the name",
        examples=['"catchment_orders"'],
    )

    backfill_readers: int = Field(
        default=2,
        ge=1,
        le=16,
        description="how many read a large table of it at the same time, in one snapshot; each has two connections",
        examples=["4"],
    )

    @property
    def slot_name(self) -> str:
        """The slot as configured, else the default."""
        return self.slot or f"catchment_{self.name}"


class OdsSettings(Section):
    """``[ods]``"""

    dsn: Dsn = Field(
        description="anything libpq takes; PostgreSQL 15 or newer, a role with CREATE on the database",
        examples=['"host=warehouse dbname=ods user=catchment"'],
    )


class LakeSettings(Section):
    """``[lake]``"""

    uri: LakeUri = Field(
        description="directory on a local disk, as `file://` and its path, or relative to catchment.toml; or a bucket "
        "and a prefix, as `s3://`, `gs://` or `az://`",
        examples=['"file:///data/lake"', '"s3://bucket/lake"'],
    )
    options: dict[str, Option] = Field(
        default={},
        repr=False,
        description="of the object store, named as in delta-rs; they go before what the environment says",
        examples=['{ region = "eu-central-1", access_key_id = "…", secret_access_key = "${LAKE_KEY}" }'],
    )
    keep: Duration = Field(
        default="7d",
        validate_default=True,
        description="how long what was the last frontier can still be read after another one has followed it,"
        " in seconds, minutes, hours or days (`90s`, `30m`, `12h`, `7d`)",
        examples=['"7d"'],
    )
    columns: dict[str, Decimal] = Field(
        default={},
        description="the type of a numeric column, by `source.schema.table.column`, where it is to be another",
        examples=['{ "orders.public.accounts.balance" = "decimal(38,10)" }'],
    )


class FeedSettings(Section):
    """``[[feed]]``"""

    name: Name = Field(default="feed", description="needed when there are several feeds", examples=['"feed"'])
    path: FeedPath = Field(
        description="file of JSON lines, with `{source}` in it; relative to catchment.toml",
        examples=['"feed/{source}.jsonl"'],
    )


class MetricsSettings(Section):
    """``[metrics]``"""

    listen: Address = Field(
        description="host:port of /metrics, /livez and /readyz; whoever reaches it can read it",
        examples=['"127.0.0.1:9187"'],
    )

    @property
    def address(self) -> tuple[str, int]:
        """Host, without brackets, and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class Settings(Section):
    """All of catchment.toml."""

    hub: HubSettings = HubSettings()
    log: LogSettings = LogSettings()
    source: tuple[SourceSettings, ...] = Field(min_length=1)
    ods: OdsSettings | None = None
    lake: LakeSettings | None = None
    feed: tuple[FeedSettings, ...] = ()
    metrics: MetricsSettings | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        _distinct("source", "give each a name of its own", [source.name for source in self.source])
        slots = [f"{source.slot_name} of {source.dsn}" for source in self.source]
        _distinct("slot", "give one of its sources another, with slot = …", slots)
        _distinct("feed", "give each a name of its own", [feed.name for feed in self.feed])
        if self.ods is None and self.lake is None and not self.feed:
            raise Mistake("there is no target", "add [ods] with a dsn, [lake] with a uri, or [[feed]] with a path")
        for column in self.lake.columns if self.lake else ():
            if column.count(".") < 3 or column.partition(".")[0] not in {source.name for source in self.source}:
                raise Mistake(
                    f"lake.columns: {column} does not begin with a source's name or does not go on to a column",
                    'write "source.schema.table.column" = "decimal(38,10)"',
                )
        for taken in {"ods", "lake"} & {feed.name for feed in self.feed}:
            raise Mistake(f"a feed cannot be called {taken}", "give it another name")
        return self

    def one(self, name: str) -> SourceSettings:
        """The source of that name. Raises ConfigError, with the names that there are."""
        for source in self.source:
            if source.name == name:
                return source
        names = ", ".join(source.name for source in self.source)
        raise ConfigError(f"there is no source {name}", remedy=f"the sources in catchment.toml are: {names}")


def _distinct(what: str, remedy: str, names: list[str]) -> None:
    if repeated := {name for name in names if names.count(name) > 1}:
        raise Mistake(f"{what} {min(repeated).partition(' of ')[0]} is there twice", remedy)


def load(path: Path) -> Settings:
    """Read the file. Raises ConfigError: one line with the place and the remedy."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        remedy = "write one with `catchment init`, or name another with --config"
        raise ConfigError(f"{path} does not exist", remedy=remedy) from None
    except OSError as error:
        remedy = "name a file that this user may read"
        raise ConfigError(f"{path} cannot be read: {error.strerror}", remedy=remedy) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 at byte {error.start}", remedy="save it as UTF-8") from None
    try:
        settings = Settings.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", remedy="correct the TOML at that place") from None
    except ValidationError as error:
        raise _explained(path, error) from None
    base = path.resolve().parent
    lake = settings.lake
    return settings.model_copy(
        update={
            "lake": lake and lake.model_copy(update={"uri": _based(lake.uri, base)}),
            "hub": settings.hub.model_copy(update={"state": base / settings.hub.state}),
            "feed": tuple(feed.model_copy(update={"path": str(base / feed.path)}) for feed in settings.feed),
        }
    )


def _based(uri: str, base: Path) -> str:
    return uri if uri.startswith(OBJECT_STORES) else str(base / uri)


def _explained(path: Path, error: ValidationError) -> ConfigError:
    found = error.errors(include_url=False, include_input=False)
    # A misspelt key is also a missing one: the misspelling is what to tell.
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    at = first["loc"][:-1] if first["loc"] and isinstance(first["loc"][-1], int) else first["loc"]
    key = str(at[-1]) if at else ""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")
    mistake = first.get("ctx", {}).get("error")
    what = f"{place} {_SAID.get(first['type'], 'is not what it has to be')}"
    remedy = "see docs/reference/configuration.md"
    if isinstance(mistake, Mistake):
        what, remedy = f"{place}: {mistake}".removeprefix(": "), mistake.remedy
    elif first["type"] == "extra_forbidden":
        what, remedy = f"{place} is not a setting", _instead(key, at[:-1])
    elif len(at) == 1 and key in SECTIONS:
        how = f"[[{key}]], in double brackets, above each {key}" if key in REPEATED else f"[{key}], in single brackets"
        what = what if first["type"] == "missing" else f"{place} is not written as a section"
        remedy = f"write {how}; `catchment init` shows it"
    elif example := _example(at):
        remedy = f"write for instance {key} = {example}"
    elif first["type"] == "string_type":
        remedy = "write it in quotes"
    return ConfigError(f"{path}: {what}", remedy=remedy)


def _instead(key: str, place: tuple[int | str, ...]) -> str:
    keys = list(_section(place).model_fields)
    near = difflib.get_close_matches(key, keys, n=1)
    return f"did you mean {near[0]}?" if near else f"remove it; there are: {', '.join(keys)}"


def _example(place: tuple[int | str, ...]) -> str:
    """What the setting there may look like, as TOML."""
    field = _section(place[:-1]).model_fields.get(str(place[-1]))
    return str(field.examples[0]) if field and field.examples else ""


def _section(place: tuple[int | str, ...]) -> type[Section]:
    return SECTIONS[str(place[0])] if place else Settings


SECTIONS: dict[str, type[Section]] = {
    "hub": HubSettings,
    "log": LogSettings,
    "source": SourceSettings,
    "ods": OdsSettings,
    "lake": LakeSettings,
    "feed": FeedSettings,
    "metrics": MetricsSettings,
}
REPEATED = {"source", "feed"}
"""The sections of catchment.toml, and those of them that there may be several of."""

_SAID = {
    "missing": "is missing",
    "string_type": "is not a string",
    "path_type": "is not a string",
    "string_too_short": "is empty",
    "int_type": "is not a whole number",
    "int_parsing": "is not a whole number",
    "int_from_float": "is not a whole number",
    "greater_than_equal": "is too small",
}
