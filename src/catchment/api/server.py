"""``[metrics] listen``: three pages over HTTP, answered beside the supervisor's own work."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from socketserver import ThreadingTCPServer
from typing import Any
from urllib.parse import urlsplit

import structlog
from prometheus_client.exposition import MetricsHandler
from prometheus_client.registry import CollectorRegistry

from catchment.api.exposition import Exposition
from catchment.api.health import not_alive, not_ready
from catchment.api.observer import Observer
from catchment.model.errors import ConfigError

_CLIENT_SECONDS = 10.0  # a client that says nothing for so long is hung up on
_POLL_SECONDS = 0.1

logger = structlog.get_logger()


@contextmanager
def serving(address: tuple[str, int], observer: Observer) -> Iterator[None]:
    """Answer on this host and port meanwhile. Raises ConfigError when they cannot be had.

    ``/metrics``: for Prometheus. ``/livez``, ``/readyz``: 200, or 503 with one line for each reason.
    """
    try:
        server = _Server(address, observer)
    except OSError as error:
        raise ConfigError(
            f"[metrics] listen: cannot listen on {address[0]}, port {address[1]}: {error.strerror or error}",
            remedy="name a free port and an address of this machine, or take [metrics] out",
        ) from None
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingTCPServer):
    """A thread for each request; none of them is waited for at the end."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], observer: Observer) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.registry = CollectorRegistry()
        self.registry.register(Exposition(observer))
        self.checks: Mapping[str, Callable[[], Sequence[str]]] = {
            "/livez": partial(not_alive, observer),
            "/readyz": partial(not_ready, observer),
        }
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):  # a client that went away is nobody's error
            logger.error("a request to [metrics] failed", error=type(error).__name__)


class _Handler(MetricsHandler):
    timeout = _CLIENT_SECONDS
    server_version, sys_version = "Catchment", ""
    server: _Server

    def do_GET(self) -> None:  # noqa: N802  # http.server finds it by this name
        path = urlsplit(self.path).path
        if path == "/metrics":
            self.registry = self.server.registry
            super().do_GET()
        elif check := self.server.checks.get(path):
            reasons = check()
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK, reasons or ["ok"])
        else:
            self._answer(HTTPStatus.NOT_FOUND, [f"here are /metrics, {', '.join(self.server.checks)}"])

    def _answer(self, status: HTTPStatus, lines: Sequence[str]) -> None:
        content = "".join(f"{line}\n" for line in lines).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
