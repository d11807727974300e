"""The hub's state in memory: for tests, and for everything within one process."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from catchment.hub.base import Request, Status
from catchment.model.errors import HubError


class MemoryHub:
    """The contract's fake: it forgets everything with its process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._statuses: dict[str, tuple[Status, ...]] = {}
        self._requests: dict[int, Request] = {}

    def report(self, worker: str, statuses: Sequence[Status]) -> None:
        now = datetime.now(UTC)
        copies = tuple(
            replace(status, worker=worker, detail=_plain(status.detail), reported_at=now) for status in statuses
        )
        with self._lock:
            self._statuses[worker] = copies

    def statuses(self) -> Sequence[Status]:
        with self._lock:
            every = [status for statuses in self._statuses.values() for status in statuses]
        return sorted(every, key=lambda status: (status.source, status.target or "", status.worker))

    def forget_worker(self, worker: str) -> None:
        with self._lock:
            self._statuses.pop(worker, None)

    def request(self, kind: str, source: str, arguments: Mapping[str, Any], by: str) -> int:
        with self._lock:
            number = len(self._requests) + 1
            self._requests[number] = Request(number, kind, source, _plain(arguments), by, datetime.now(UTC))
            return number

    def unclaimed(self) -> Collection[tuple[str, str]]:
        with self._lock:
            requests = self._requests.values()
            return {(each.source, each.kind) for each in requests if each.worker is None and each.finished_at is None}

    def claim(self, worker: str, sources: Sequence[str], kinds: Sequence[str]) -> Request | None:
        with self._lock:
            for number, request in self._requests.items():
                free = request.worker is None and request.finished_at is None
                if free and request.source in sources and request.kind in kinds:
                    first = request.claimed_at or datetime.now(UTC)
                    self._requests[number] = replace(request, worker=worker, claimed_at=first)
                    return self._requests[number]
        return None

    def release(self, source: str) -> None:
        with self._lock:
            for number, request in self._requests.items():
                if request.source == source and request.finished_at is None:
                    self._requests[number] = replace(request, worker=None)

    def withdraw(self, request: int, outcome: str) -> bool:
        with self._lock:
            found = self._find(request)
            if found.claimed_at is not None or found.finished_at is not None:
                return False
            self._requests[request] = replace(found, finished_at=datetime.now(UTC), outcome=outcome)
            return True

    def finish(self, request: int, outcome: str) -> None:
        with self._lock:
            self._requests[request] = replace(self._find(request), finished_at=datetime.now(UTC), outcome=outcome)

    def find(self, request: int) -> Request:
        with self._lock:
            return self._find(request)

    def close(self) -> None:
        """There are no files."""

    def _find(self, number: int) -> Request:
        if number not in self._requests:
            raise HubError(f"there is no request {number}", remedy="ask again")
        return self._requests[number]


def _plain(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """As JSON brings it back, so that nothing passes here that a real hub would refuse or change."""
    plain: Mapping[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    return plain
