"""catchment.toml, read into frozen settings."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from catchment.model.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_RESERVED = {"catchment", "public"}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value) or len(value) > 30:
        raise ValueError("a name is made of a-z, 0-9 and single _, begins with a letter and has at most 30 characters")
    if value in _RESERVED or value.startswith("pg_"):
        raise ValueError(f"{value} is reserved")
    return value


def _slot(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,63}", value):
        raise ValueError("a slot's name is made of a-z, 0-9 and _, at most 63 characters")
    return value


def _expanded(value: str) -> str:
    def variable(match: re.Match[str]) -> str:
        if (found := os.environ.get(match[1])) is None:
            raise ValueError(f"the environment variable {match[1]} is not set")
        return found

    return _VARIABLE.sub(variable, value)


def _feed_path(value: str) -> str:
    if "{source}" not in value:
        raise ValueError("the path needs {source} in it, so that each source has a file of its own")
    return value


Name = Annotated[str, AfterValidator(_name)]
SlotName = Annotated[str, AfterValidator(_slot)]
Dsn = Annotated[str, Field(min_length=1, repr=False), AfterValidator(_expanded)]


class Section(BaseModel):
    """A table of catchment.toml. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HubSettings(Section):
    """``[hub]``"""

    state: Path = Field(default=Path("var"), description="directory of logs and status; relative to catchment.toml")

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
    )


class SourceSettings(Section):
    """``[[source]]``"""

    name: Name = Field(description="[a-z][a-z0-9]*(_[a-z0-9]+)*, at most 30 characters; also the dataset's name")
    dsn: Dsn = Field(description="anything libpq takes; ${ENV} is expanded")
    publication: str = Field(default="catchment", min_length=1, description="which tables the source shares")
    slot: SlotName = Field(default="", description="replication slot; default: catchment_<name>")

    @property
    def slot_name(self) -> str:
        """The slot as configured, else the default."""
        return self.slot or f"catchment_{self.name}"


class OdsSettings(Section):
    """``[ods]``"""

    dsn: Dsn = Field(description="anything libpq takes; ${ENV} is expanded; PostgreSQL 15 or newer")


class FeedSettings(Section):
    """``[[feed]]``"""

    name: Name = Field(default="feed", description="needed when there are several feeds")
    path: Annotated[str, AfterValidator(_feed_path)] = Field(
        description="file of JSON lines, with {source} in it; relative to catchment.toml"
    )


class Settings(Section):
    """All of catchment.toml."""

    hub: HubSettings = HubSettings()
    log: LogSettings = LogSettings()
    source: tuple[SourceSettings, ...] = Field(min_length=1)
    ods: OdsSettings | None = None
    feed: tuple[FeedSettings, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        _distinct("source", [source.name for source in self.source])
        _distinct("slot", [f"{source.slot_name} of {source.dsn}" for source in self.source])
        _distinct("feed", [feed.name for feed in self.feed])
        if self.ods is None and not self.feed:
            raise ValueError("there is no target: add [ods] or [[feed]]")
        if any(feed.name == "ods" for feed in self.feed):
            raise ValueError("a feed cannot be called ods")
        return self

    def one(self, name: str) -> SourceSettings:
        """The source of that name. Raises ConfigError, with the names that there are."""
        for source in self.source:
            if source.name == name:
                return source
        names = ", ".join(source.name for source in self.source)
        raise ConfigError(f"there is no source {name}", remedy=f"the sources in catchment.toml are: {names}")


def _distinct(what: str, names: list[str]) -> None:
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{what} {min(repeated).partition(' of ')[0]} is there twice")


def load(path: Path) -> Settings:
    """Read the file. Raises ConfigError: one line with the place and the remedy."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist", remedy="write one, or name another with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__})", remedy="check the file") from None
    try:
        settings = Settings.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", remedy="correct the TOML at that place") from None
    except ValidationError as error:
        raise _explained(path, error) from None
    base = path.resolve().parent
    return settings.model_copy(
        update={
            "hub": settings.hub.model_copy(update={"state": base / settings.hub.state}),
            "feed": tuple(feed.model_copy(update={"path": str(base / feed.path)}) for feed in settings.feed),
        }
    )


def _explained(path: Path, error: ValidationError) -> ConfigError:
    found = error.errors(include_url=False, include_input=False)
    # A misspelt key is also a missing one: the misspelling is what to tell.
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    match first["type"]:
        case "extra_forbidden":
            key = str(first["loc"][-1])
            near = difflib.get_close_matches(key, _keys(first["loc"][:-1]), n=1)
            return ConfigError(
                f"{path}: {place} is not a setting", remedy=f"did you mean {near[0]}?" if near else "remove it"
            )
        case "missing":
            return ConfigError(f"{path}: {place} is missing", remedy="add it")
        case _:
            message = first["msg"].removeprefix("Value error, ")
            return ConfigError(f"{path}: {place}: {message}" if place else f"{path}: {message}", remedy="correct it")


def _keys(place: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, Any] = {
        "hub": HubSettings,
        "log": LogSettings,
        "source": SourceSettings,
        "ods": OdsSettings,
        "feed": FeedSettings,
    }
    section = sections[str(place[0])] if place else Settings
    return list(section.model_fields)
