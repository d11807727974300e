"""A server of the S3 protocol: moto's, in a process of its own.

moto looks whether there is an object and then writes it; a store does both at once. So puts are taken one at a time.
"""

from __future__ import annotations

import io
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from itertools import count
from threading import Lock
from types import TracebackType
from typing import Any, Self


class S3Server:
    """Its buckets are gone when it ends. ``options`` are what ``[lake.options]`` needs to reach it.

    Some kinds of buckets, made by ``bucket(kind)``, are special: ``unconditional`` ones overwrite what is there
    although they are told not to; of ``lossy.7`` every seventh put of a commit is done, but answered with an error;
    ``says.403.AccessDenied`` says only that.
    """

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._numbers = count(1)

    @property
    def options(self) -> dict[str, str]:
        return self.options_through(self.port)

    def options_through(self, port: int) -> dict[str, str]:
        """The same by way of another port of this machine."""
        return {
            "endpoint": f"http://127.0.0.1:{port}",
            "allow_http": "true",
            "region": "us-east-1",
            "access_key_id": "catchment",
            "secret_access_key": "canary-of-a-secret",
        }

    def bucket(self, kind: str = "plain") -> str:
        """The name of a new one."""
        name = f"{kind}.{next(self._numbers)}"
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{name}", method="PUT")
        with urllib.request.urlopen(request):  # noqa: S310 - an address of ours
            return name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


class _Application:
    """moto's, with one put at a time, and with what the names of some buckets ask for."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._lock = Lock()
        self._commits = 0

    def __call__(self, environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        _, bucket, *key = environment["PATH_INFO"].split("/", 2)
        kind, _, said = bucket.partition(".")
        if kind == "says":
            status, code, _ = said.split(".")
            is_made = environment["REQUEST_METHOD"] == "PUT" and not key
            return _say(start_response, "200 OK" if is_made else f"{status} Says", code)
        if environment["REQUEST_METHOD"] != "PUT":
            answer: Iterable[bytes] = self._application(environment, start_response)
            return answer
        length = int(environment.get("CONTENT_LENGTH") or 0)
        body = environment["wsgi.input"].read(length)
        if len(body) < length:  # the connection was cut
            return _say(start_response, "400 Bad Request", "IncompleteBody")
        environment["wsgi.input"] = io.BytesIO(body)
        if kind == "unconditional":
            environment.pop("HTTP_IF_NONE_MATCH", None)
        with self._lock:
            if kind == "lossy" and environment["PATH_INFO"].endswith(".json"):
                self._commits += 1
                if self._commits % int(said.partition(".")[0]) == 0:
                    list(self._application(environment, lambda *_: None))
                    return _say(start_response, "500 Internal Server Error", "InternalError")
            return list(self._application(environment, start_response))


def _say(start_response: Any, status: str, code: str) -> Iterable[bytes]:
    """An error as S3 tells it, with what nobody ought to repeat."""
    start_response(status, [("Content-Type", "application/xml")])
    told = f"<Error><Code>{code}</Code><StringToSign>canary-of-a-secret</StringToSign></Error>"
    return [told.encode()]


def _serve() -> None:
    """Until standard input ends, so that nothing is left when whoever has started it is killed."""
    from threading import Thread

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: Any) -> None:
            pass

    application = _Application(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve()
