"""Asking the running hub for something, and seeing it through to its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import typer

from catchment.cli.entry import FAILED
from catchment.config import Settings
from catchment.hub.base import DROPPED, Hub
from catchment.hub.lock import held
from catchment.hub.sqlite import SqliteHub
from catchment.hub.summary import NOT_RUNNING, Summary, summarise
from catchment.model.errors import HubDown, HubError

_ROUND_SECONDS = 0.1
_SETTLING_SECONDS = 2.0  # a worker looks for requests several times a second, also while its source is stopped
_UNHEARD_SECONDS = 15.0


@contextmanager
def running_hub(settings: Settings) -> Iterator[Hub]:
    """The hub that runs with these settings. Raises HubDown when there is none."""
    if not held(settings.hub.state):
        raise HubDown(f"no hub runs on {settings.hub.state}")
    with closing(SqliteHub(settings.hub.database)) as hub:
        yield hub


def ask(hub: Hub, kind: str, source: str, arguments: Mapping[str, Any]) -> int:
    """Ask as whoever is logged in; returns the request's id."""
    return hub.request(kind, source, arguments, _asker())


def source_entry(settings: Settings, hub: Hub, source: str) -> Summary:
    """How the source stands, as ``status`` says it."""
    entry: Summary
    (entry,) = summarise([source], [], hub.statuses(), held(settings.hub.state), datetime.now(UTC))["sources"]
    return entry


def to_stderr(sentence: str) -> None:
    """Say something that is not the result."""
    typer.echo(sentence, err=True)


def conclude(outcome: str) -> None:
    """Print the outcome; one that was refused ends the command with status 1."""
    if outcome.startswith("refused"):
        to_stderr(f"error: {outcome}")
        raise typer.Exit(FAILED)
    typer.echo(outcome)


class Asked:
    """A request, from asking to its outcome.

    Nobody waits in silence: ``say`` is given each sentence of what is in the way, once. Whatever ends the waiting
    before there is an outcome withdraws the request: Ctrl-C, a hangup, impatience, the hub's end. What is under way
    goes on.
    """

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        kind: str,
        source: str,
        arguments: Mapping[str, Any],
        say: Callable[[str], None] = to_stderr,
    ) -> None:
        self._settings = settings
        self._hub = hub
        self._source = source
        self._say = say
        self._said: set[str] = set()
        self._began = time.monotonic()
        self._arguments = kind, source, arguments
        self._request = 0

    def outcome(
        self,
        *,
        by_stream: bool,
        patience: float | None = None,
        watch: Callable[[Summary], None] = lambda _: None,
    ) -> str:
        """Ask, and wait for the outcome.

        ``by_stream``: only a source that is being collected from can do it. ``watch`` hears how the source stands while
        it does. Raises HubDown when the hub ends before, HubError when nothing can come of it, or nothing has within
        ``patience`` seconds.
        """
        try:
            with _hangup_is_ctrl_c():
                with _undisturbed():
                    self._request = ask(self._hub, *self._arguments)
                return self._waited_for(by_stream, patience, watch)
        except KeyboardInterrupt:
            if self._request:
                self._say(self._withdrawn("Ctrl-C"))
            raise

    def _waited_for(self, by_stream: bool, patience: float | None, watch: Callable[[Summary], None]) -> str:
        while (found := self._hub.find(self._request)).outcome is None:
            waited = time.monotonic() - self._began
            if not held(self._settings.hub.state):
                raise HubDown(f"the hub has ended: {self._withdrawn('the end of the hub')}", source=self._source)
            if patience is not None and waited > patience:
                why = f"not done after {patience:.0f} s: {self._withdrawn('impatience')}"
                raise HubError(why, source=self._source, remedy="`catchment status` says what its loops are doing")
            entry = source_entry(self._settings, self._hub, self._source)
            if found.claimed_at is None:
                self._tell_what_is_in_the_way(entry, by_stream, waited)
            else:
                watch(entry)
                self._tell_trouble(entry, by_stream, waited)
            time.sleep(_ROUND_SECONDS)
        return found.outcome

    def _tell_what_is_in_the_way(self, entry: Summary, by_stream: bool, waited: float) -> None:
        """Of a request that nobody has taken up yet. Raises HubError where waiting makes no sense."""
        state = entry["state"]
        if state == DROPPED and by_stream:
            raise self._hopeless(
                "it was dropped", "take it out of catchment.toml; the next run would begin anew with it"
            )
        if state == NOT_RUNNING:
            if waited > _UNHEARD_SECONDS:
                raise self._hopeless("the running hub leaves it out", "start `catchment run` without --only")
            if waited > _SETTLING_SECONDS:
                self._tell(f"source {self._source}: the running hub has said nothing of it yet")
        elif state == "stopped" and by_stream:
            # Left time to be taken up: of a slot that is lost this may be the remedy itself.
            if waited > _SETTLING_SECONDS:
                withdrawn = self._withdrawn("a source that is stopped")
                raise HubError(f"stopped: {entry['remedy']} ({withdrawn})")
        elif entry["remedy"]:
            self._tell_trouble(entry, by_stream, waited)
        elif waited > _SETTLING_SECONDS:
            self._tell(f"source {self._source}, {state}: its loop has not looked at request {self._request} yet")

    def _tell_trouble(self, entry: Summary, by_stream: bool, waited: float) -> None:
        of_tables = {table["remedy"] for table in entry["tables"]}
        at_once = by_stream and entry["state"] != "stopped"
        if entry["remedy"] and entry["remedy"] not in of_tables and (at_once or waited > _SETTLING_SECONDS):
            self._tell(f"{entry['state']}: {entry['remedy']}")

    def _tell(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._say(f"waiting: {sentence}")

    def _hopeless(self, what: str, remedy: str) -> HubError:
        return HubError(f"{what} ({self._withdrawn(what)})", source=self._source, remedy=remedy)

    def _withdrawn(self, why: str) -> str:
        """Withdraw the request; returns what has become of it."""
        if self._hub.withdraw(self._request, f"withdrawn: {why}"):
            return f"request {self._request} is withdrawn, nothing was done"
        if (outcome := self._hub.find(self._request).outcome) is not None:
            return f"request {self._request} has just ended: {outcome}"
        return f"request {self._request} is under way and goes on"


def _asker() -> str:
    return os.environ.get("LOGNAME") or os.environ.get("USER") or f"user {os.getuid()}"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C takes effect behind this block: within it, nobody would know any more what there is to withdraw."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _hangup_is_ctrl_c() -> Iterator[None]:
    """Whoever closes the terminal, or ends this command by a signal, does not wait any more either."""
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
