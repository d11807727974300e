"""A lake in an object store whose answers are lost, whose connections break, and that others write to as well."""

from __future__ import annotations

import random
import socket
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import polars
import pytest
from lake_source import Transactions, a_life
from s3_server import S3Server
from tcp_proxy import TcpProxy

import catchment.lake
from catchment.model.errors import CatchmentError, ConfigError, TargetRefused, TargetUnreachable
from catchment.targets.lake import LakeTarget, checkpoint, folding, place
from catchment.targets.lake.place import open_store
from catchment.targets.lake.preflight import check_lake

CANARY = "canary-of-a-secret"


@pytest.fixture(autouse=True)
def upkeep_at_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What usually comes after many commits comes after a few."""
    monkeypatch.setattr(folding, "_FILES", 2)
    monkeypatch.setattr(checkpoint, "_EVERY", 2)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library tries again at once."""
    backoff = {"init_backoff": timedelta(milliseconds=1)}
    monkeypatch.setattr(place, "_PATIENCE", {"max_retries": 4, "backoff": backoff})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library does not try again: whoever has asked is told."""
    monkeypatch.setattr(place, "_PATIENCE", {"max_retries": 0})


def opened(uri: str, options: dict[str, str], cache: Path) -> LakeTarget:
    return LakeTarget(open_store(uri, options), cache, {"orders": "orders"}, keep=timedelta(0))


def seen(uri: str, options: dict[str, str]) -> dict[str, list[str]]:
    """The rows of all tables and histories that belong together."""
    view = catchment.lake.open(uri, options).at("orders")
    found: dict[str, list[str]] = {"frontier": [str(view.frontier)]}
    for kind, tables in (("current", view.tables), ("history", view.histories)):
        for table in tables.values():
            rows = polars.DataFrame(table.to_arrow())
            found[f"{kind} of {table.name}"] = sorted(map(str, rows.select(sorted(rows.columns)).rows()))
    return found


def deliver(target: LakeTarget, life: Transactions) -> int:
    """As the deliver loop does it: what is unreachable is tried again. Returns how often it was."""
    failed = 0
    for transaction in life:
        for _ in range(200):
            try:
                target.apply("orders", transaction)
                target.tend("orders", 60)
                break
            except TargetUnreachable as error:
                assert CANARY not in repr(error)  # noqa: PT017 - it is no matter which of them
                failed += 1
        else:
            pytest.fail("it does not come to an end")
    return failed


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Transactions:
    return a_life(tmp_path_factory.mktemp("life"))


@pytest.fixture(scope="module")
def expected(life: Transactions, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a lake on a local disk shows in the end."""
    root = tmp_path_factory.mktemp("expected")
    assert deliver(opened(f"file://{root}/lake", {}, root / "cache"), life) == 0
    return seen(f"file://{root}/lake", {})


@pytest.mark.usefixtures("quick")
def test_promise_1_a_put_whose_answer_was_lost_counts_once(
    life: Transactions, expected: dict[str, list[str]], s3_server: S3Server, tmp_path: Path
) -> None:
    uri = f"s3://{s3_server.bucket('lossy.2')}"
    # The library sends it again, and is told that there is one already.
    assert deliver(opened(uri, s3_server.options, tmp_path / "cache"), life) == 0
    assert seen(uri, s3_server.options) == expected


@pytest.mark.usefixtures("impatient")
def test_promise_1_two_hubs_write_the_same_while_answers_are_lost_and_connections_are_cut(
    life: Transactions, expected: dict[str, list[str]], s3_server: S3Server, tmp_path: Path
) -> None:
    uri, over = f"s3://{s3_server.bucket('lossy.7')}/lake", Event()
    with TcpProxy(s3_server.port) as proxy, ThreadPoolExecutor(2) as pool:

        def cut() -> None:
            for _ in range(40):
                if not over.wait(random.uniform(0.01, 0.1)):
                    proxy.cut()

        def write(number: int, port: int) -> int:
            return deliver(opened(uri, s3_server.options_through(port), tmp_path / str(number)), life)

        cutting = Thread(target=cut)
        cutting.start()
        try:
            print("tried again", list(pool.map(write, (1, 2), (s3_server.port, proxy.port))))
        finally:
            over.set()
            cutting.join()
    assert seen(uri, s3_server.options) == expected


ANSWERS = [
    ("says.403.AccessDenied", TargetRefused, "access is denied (403 AccessDenied); check the credentials"),
    ("says.401.Unauthorized", TargetRefused, "access is denied (401 Unauthorized); check the credentials"),
    ("says.404.NoSuchBucket", TargetRefused, "there is no such bucket; make it, or give [lake] another uri"),
    ("says.400.AuthorizationHeaderMalformed", TargetRefused, "(400 AuthorizationHeaderMalformed); check uri and opt"),
    ("says.301.PermanentRedirect", TargetRefused, "the bucket is in another region; set region in [lake.options]"),
    ("says.501.NotImplemented", TargetRefused, "refuses what it is asked (501 NotImplemented)"),
    ("says.503.SlowDown", TargetUnreachable, "does not answer as it should (503 SlowDown); check the network"),
    ("unconditional", TargetRefused, "If-None-Match); use an object store with conditional writes"),
]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("kind", "refused", "sentence"), ANSWERS, ids=[kind for kind, *_ in ANSWERS])
def test_what_the_store_says_is_told_in_a_line_with_its_remedy_and_without_secrets(
    kind: str,
    refused: type[CatchmentError],
    sentence: str,
    life: Transactions,
    s3_server: S3Server,
    tmp_path: Path,
) -> None:
    uri = f"s3://{s3_server.bucket(kind)}/lake"
    store = open_store(uri, s3_server.options)
    with pytest.raises(refused) as caught:
        LakeTarget(store, tmp_path / "cache", {"orders": "orders"}).apply("orders", life[0])
    assert sentence in str(caught.value)
    (finding,) = check_lake(store, [], {})
    assert sentence.partition(";")[0] in finding.what
    assert finding.level == "error"
    asked: list[Callable[[], Any]] = [
        lambda: store.names("orders"),
        lambda: store.files("orders"),
        lambda: store.read("a"),
        lambda: store.open("a"),
        lambda: store.write({"a": b"a"}),
        lambda: store.remove("a"),
    ]
    for ask in asked if kind != "unconditional" else []:
        with pytest.raises(refused) as caught:
            ask()
        assert uri in str(caught.value)
        assert CANARY not in told(caught.value)


def told(error: BaseException) -> str:
    """All that a log with a traceback would show."""
    return "".join(traceback.format_exception(error))


@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_not_there_is_tried_again_but_not_one_that_may_not_be_asked(
    s3_server: S3Server, tmp_path: Path
) -> None:
    without = {name: value for name, value in s3_server.options.items() if name != "allow_http"}
    with pytest.raises(TargetRefused, match='its endpoint is http://; write https://, or allow_http = "true"'):
        opened("s3://b/lake", without, tmp_path).frontier("orders")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens, and nobody else gets the port
        options = s3_server.options_through(bound.getsockname()[1])
        with pytest.raises(TargetUnreachable, match=r"s3://b/lake cannot be reached; .* it is tried again"):
            opened("s3://b/lake", options, tmp_path).frontier("orders")


@pytest.mark.parametrize(
    ("uri", "options", "sentence"),
    [
        ("s3://b", {"regoin": "eu-west-1"}, "lake.options: Configuration key: 'regoin' is not valid"),
        ("s3://b", {"allow_http": CANARY}, 'lake.options: .*failed to parse "…" as boolean'),
        ("s3://", {}, "lake: s3:// is not a place that Catchment knows; write a directory, or s3://"),
        ("ftp://b/lake", {}, "ftp://b/lake is not a place that Catchment knows"),
        ("/data/lake", {"region": "eu-west-1"}, "a lake on a local disk has no options"),
    ],
)
def test_what_is_wrong_with_the_settings_is_told_in_a_line(uri: str, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        catchment.lake.open(uri, options)
    assert CANARY not in told(caught.value)
