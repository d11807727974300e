"""Every error that a person can meet.

::

    CatchmentError                 what, where, remedy: one line
    ├── ConfigError                catchment.toml or the environment is wrong
    ├── HubError                   the hub's own state
    │   ├── HubBusy                another run holds the state directory
    │   └── HubDown                what was asked needs a running hub
    ├── DecodeError                bytes that are not what the protocol promises
    ├── SourceError
    │   ├── SourceUnreachable      (retried) no connection, or it broke
    │   ├── SourceRefused          the server says no: privilege, setting, publication
    │   ├── SlotBusy               (retried) another process streams from the slot
    │   ├── SlotBlocked            (retried) the slot's creation waits for an open transaction
    │   ├── SlotLost               the slot cannot continue where the log ends
    │   ├── TableLocked            (retried) a table to be read is locked
    │   └── TableStopped           one table cannot be followed any further
    ├── LogError
    │   ├── LogBusy                (retried) another process writes this log
    │   ├── LogGap                 a batch does not continue the log
    │   ├── LogFull                (retried) no space left; nothing is acknowledged
    │   ├── LogTrimmed             what was asked for is no longer kept
    │   └── LogCorrupt             a file of the log does not read back
    └── TargetError
        ├── TargetUnreachable      (retried) no connection, or it broke
        ├── TargetWentBack         (retried from there) it has lost what it had last taken in
        ├── TargetRefused          the target says no: privilege, encoding, something in the way
        ├── TableMisshapen         one table of the target cannot take what the source has
        └── TableRefused           (retried, without it) the target refuses what one table is told

Each package translates its library's errors into these once. ``retry`` says whether trying again can help; what
cannot be helped by trying again stops that source or target alone and waits for a person. Row values never appear.
"""

from __future__ import annotations

import re
from typing import ClassVar

_COMMAND = re.compile(r"(`catchment [a-z ]+) NAME\b")


class CatchmentError(Exception):
    """Base of all. ``str()`` is one line: where, what, remedy. In a command of a remedy NAME stands for the source."""

    retry: ClassVar[bool] = False
    default_remedy: ClassVar[str] = ""

    def __init__(
        self,
        what: str,
        *,
        target: str | None = None,
        source: str | None = None,
        table: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.what = " ".join(what.split())
        self.target = target
        self.source = source
        self.table = table
        self._remedy = remedy or self.default_remedy
        super().__init__(self.what)

    @property
    def where(self) -> str:
        """``target ods, source orders, table public.accounts``, as far as it is known."""
        parts = (("target", self.target), ("source", self.source), ("table", self.table))
        return ", ".join(f"{kind} {name}" for kind, name in parts if name)

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return self._remedy if self.source is None else _COMMAND.sub(rf"\1 {self.source}", self._remedy)

    def __str__(self) -> str:
        sentence = f"{self.where}: {self.what}" if self.where else self.what
        return f"{sentence}; {self.remedy}" if self.remedy else sentence

    def __reduce__(self) -> tuple[type[CatchmentError], tuple[str], dict[str, str | None]]:
        where = {"target": self.target, "source": self.source, "table": self.table}
        return type(self), (self.what,), {**where, "_remedy": self._remedy}


class ConfigError(CatchmentError):
    """catchment.toml or the environment is wrong."""


class HubError(CatchmentError):
    """The hub's own state."""


class HubBusy(HubError):
    """Another ``catchment run`` holds the state directory."""

    default_remedy = "stop it first, or give this one another [hub] state"


class HubDown(HubError):
    """What was asked needs a running hub."""

    default_remedy = "start it with `catchment run`"


class DecodeError(CatchmentError):
    """Bytes that are not what the protocol promises; ``position`` is the byte within the message or the data."""

    default_remedy = "this is a defect of Catchment or of something between it and the server: please report it"

    def __init__(
        self,
        what: str,
        *,
        position: int = 0,
        target: str | None = None,
        source: str | None = None,
        table: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(f"{what} (at byte {position})", target=target, source=source, table=table, remedy=remedy)
        self.position = position


NOT_UTF8 = (
    "mend it in the source, whose database does not check its encoding; if the stream has it already, "
    "`catchment source drop NAME` and a new run begin behind it"
)
"""The remedy of a value that is not text."""


class SourceError(CatchmentError):
    """Something about a source."""


class SourceUnreachable(SourceError):
    """No connection to the source, or it broke."""

    retry = True
    default_remedy = "check that the server runs and that the dsn is right"


class SourceRefused(SourceError):
    """The source's server says no: a privilege, a setting or the publication is missing."""


class SlotBusy(SourceError):
    """Another process streams from the slot."""

    retry = True
    default_remedy = (
        "if no earlier run is just ending, another hub has it, such as one that was moved: give each its own slot"
    )


class SlotBlocked(SourceError):
    """The creation of the slot waits for a transaction that was open before."""

    retry = True
    default_remedy = "end that transaction; the slot is created as soon as it is gone"


class SlotLost(SourceError):
    """The slot cannot continue where the log ends: going on would lose changes without a word."""


def start_over(source: str | None) -> str:
    """The remedy of a lost slot."""
    return (
        f"run `catchment backfill {source}`: it makes a new slot and reads all tables again, readers keep what they see"
    )


class TableLocked(SourceError):
    """A table that is to be read is locked, or its lock is wanted by somebody else."""

    retry = True
    default_remedy = "it is read as soon as the lock is free"


class TableStopped(SourceError):
    """One table cannot be followed any further; all others go on."""


class LogError(CatchmentError):
    """Something about the change log."""


class LogBusy(LogError):
    """Another process writes this log."""

    retry = True
    default_remedy = "if it is not an earlier run that is just ending, give each hub its own [hub] state"


class LogGap(LogError):
    """A batch does not continue the log."""

    default_remedy = "this is a defect of Catchment: please report it; nothing was written"


class LogFull(LogError):
    """No space left for the log. Nothing is acknowledged to the source until there is."""

    retry = True
    default_remedy = "free some space, or lower [log] max_bytes"


class LogTrimmed(LogError):
    """What was asked for is no longer kept."""


class LogCorrupt(LogError):
    """A file of the log does not read back as it was written."""


class TargetError(CatchmentError):
    """Something about a target."""


class TargetUnreachable(TargetError):
    """No connection to the target, or it broke."""

    retry = True
    default_remedy = "check that the server runs and that the dsn is right"


class TargetWentBack(TargetError):
    """The target has lost what it had last taken in: its server crashed, or an older state of it was restored."""

    retry = True
    default_remedy = "nothing has to be done: what it has lost is delivered again"


class TargetRefused(TargetError):
    """The target says no: a privilege is missing, or something is in the way."""


class TableMisshapen(TargetError):
    """One table of the target cannot take what the source has; all others go on."""


class TableRefused(TargetError):
    """The target refuses what one table is told: it has stopped there by now, and all others go on when retried."""

    retry = True
