"""Commands that need no server: one line for bad input, the right exit status, no passwords, a light supervisor."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from catchment.cli.main import app
from catchment.config import LogSettings, Settings, load
from catchment.hub.base import Request, Status
from catchment.hub.lock import StateLock
from catchment.hub.sqlite import SqliteHub
from catchment.log.base import LogWriter
from catchment.log.sqlite import SqliteLog
from catchment.model.batch import Batch, Message, Place, SchemaChanged
from catchment.model.errors import HubError
from catchment.model.lsn import Lsn
from catchment.model.table import Column, ReplicaIdentity, Table

CANARY = "canary7391"
NOW = datetime.now(UTC)

CONFIG = f"""
[[source]]
name = "orders"
dsn = "host=127.0.0.1 port=1 dbname=orders user=reader password={CANARY}"

[ods]
dsn = "postgresql://writer:{CANARY}@127.0.0.1:1/ods"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CATCHMENT_CONFIG", raising=False)
    path = tmp_path / "catchment.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def state(config: Path) -> Path:
    """The state directory, which does not exist yet."""
    return config.parent / "var"


_LOADED = "import catchment.assembly, catchment.changes.jsonlines, catchment.pipeline.worker, catchment.cli.progress"
COMMANDS = (
    *("init", "check", "run", "status", "verify", "backfill", "demo"),
    *("source sql", "source drop", "log show", "lake show", "log trim"),
)


def catchment(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def error_of(result: Result, status: int) -> str:
    """The one line on stderr of a command that ended with this exit status."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def test_a_missing_file_is_named_with_the_option(config: Path) -> None:
    config.unlink()
    assert error_of(catchment("status"), 2) == (
        "catchment.toml does not exist; write one with `catchment init`, or name another with --config"
    )


def test_the_file_may_be_named_before_and_behind_the_command(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.rename("other.toml")
    assert catchment("status", "--config", "other.toml").exit_code == 0
    assert catchment("--config", "other.toml", "status").exit_code == 0
    assert catchment("source", "sql", "orders", "--config", "other.toml").exit_code == 0
    monkeypatch.setenv("CATCHMENT_CONFIG", "other.toml")
    assert catchment("status").exit_code == 0
    assert "wrong.toml does not exist" in error_of(catchment("--config", "wrong.toml", "status"), 2)
    assert "catchment.toml does not exist" in error_of(catchment("status", "--config", "catchment.toml"), 2)


def test_invalid_toml_is_named_with_its_line(config: Path) -> None:
    config.write_text('[[source]\nname = "orders"\n')
    line = error_of(catchment("status"), 2)
    assert "catchment.toml" in line
    assert "line 1" in line


def test_an_unknown_key_is_named_with_the_one_that_was_meant(config: Path) -> None:
    config.write_text(CONFIG.replace("[ods]", 'publicaton = "shared"\n\n[ods]'))
    line = error_of(catchment("check"), 2)
    assert "source[0].publicaton is not a setting; did you mean publication?" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "customers"],
        ["run", "--only", "customers"],
        ["backfill", "customers"],
        ["source", "sql", "customers"],
        ["source", "drop", "customers"],
        ["log", "show", "customers"],
        ["log", "trim", "customers", "--through", "1"],
    ],
    ids=" ".join,
)
def test_an_unknown_source_is_a_matter_of_usage(config: Path, arguments: list[str]) -> None:
    line = error_of(catchment(*arguments), 2)
    assert line == "there is no source customers; the sources in catchment.toml are: orders"


def test_wrong_usage_ends_with_2(config: Path) -> None:
    assert catchment("nonsense").exit_code == 2
    assert catchment("log", "trim", "orders").exit_code == 2


def test_every_command_has_help_with_an_example() -> None:
    for command in COMMANDS:
        result = catchment(*command.split(), "--help")
        assert result.exit_code == 0
        assert f"Example: catchment {command}" in result.stdout
        assert result.stdout.isascii()


def test_the_list_of_commands_is_grouped_and_whole() -> None:
    listed = catchment("--help").stdout.partition("To begin:")[2]
    assert [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "] == [
        *("demo", "init", "check", "source"),
        *("run", "status", "backfill"),
        *("verify", "log", "lake"),
    ]
    assert listed.index("To run:") < listed.index("  run ") < listed.index("To look closer:")
    assert "..." not in listed


def test_version_names_every_part() -> None:
    result = catchment("--version")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        "catchment",
        "Python",
        "pyarrow",
        "psycopg",
        "wire",
        "SQLite",
    ]


def test_the_environment_chooses_the_twin_of_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATCHMENT_WIRE", "python")
    assert "\nwire python\n" in catchment("--version").stdout


@pytest.mark.parametrize("command", ["--version", "run"])
def test_a_twin_that_there_is_not_is_refused_in_one_line(
    config: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("CATCHMENT_WIRE", "fortran")
    assert error_of(catchment(command), 2) == (
        "CATCHMENT_WIRE is neither python nor native; set it to one of them, or leave it out"
    )
    monkeypatch.setenv("CATCHMENT_WIRE", "native")
    monkeypatch.setattr("catchment.wire.choice.find_spec", lambda name: None)
    assert error_of(catchment(command), 2) == (
        "CATCHMENT_WIRE is native, but this installation has only python; "
        "leave it out, or install Catchment again where there are a C compiler and Python's headers"
    )


def test_init_writes_a_file_that_every_command_can_read(config: Path) -> None:
    config.unlink()
    result = catchment("init")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "wrote catchment.toml. What comes next:"
    assert "catchment check" in result.stdout
    settings = load(config)
    assert ([source.name for source in settings.source], settings.ods is not None) == (["orders"], True)
    assert catchment("status").exit_code == 0


def test_every_setting_is_in_the_file_that_init_writes_with_its_default(config: Path) -> None:
    config.unlink()
    catchment("init")
    text = re.sub(r"(?m)^# (\[|\w+ = )", r"\1", config.read_text())  # what is commented out is put in
    config.write_text(text)
    settings = load(config)
    assert settings.model_fields_set == set(Settings.model_fields)
    (orders, _), (feed,), metrics = settings.source, settings.feed, settings.metrics
    assert metrics is not None
    for section in (settings.hub, settings.log, metrics, orders):
        assert section.model_fields_set == set(type(section).model_fields)
    assert (orders.publication, orders.slot) == ("catchment", "catchment_orders")
    assert (settings.hub.state.name, settings.log) == ("var", LogSettings())
    assert feed.path.endswith("feed/{source}.jsonl")


def test_init_never_overwrites(config: Path) -> None:
    assert error_of(catchment("init"), 2) == (
        "catchment.toml exists already, and stays as it is; edit it, or name another with --config"
    )
    assert config.read_text() == CONFIG
    assert "No such file or directory" in error_of(catchment("init", "--config", "nowhere/catchment.toml"), 2)
    assert "catchment check --config 'my own.toml'" in catchment("init", "--config", "my own.toml").stdout


def completions(*words: str) -> list[str]:
    environment = {**os.environ, "COMP_WORDS": " ".join(("catchment", *words)), "COMP_CWORD": str(len(words))}
    command = [Path(sys.executable).with_name("catchment")]
    environment["_CATCHMENT_COMPLETE"] = "complete_bash"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_the_shell_completes_sources_and_tables(config: Path, state: Path) -> None:
    assert completions("backfill", "o") == ["orders"]
    assert completions("source", "drop", "x") == []
    assert completions("backfill", "orders", "p") == []
    table = {"name": "public.customers", "state": "streaming", "remedy": None}
    with StateLock(state), closing(SqliteHub(state / "hub.sqlite")) as hub:
        hub.report("worker-1", [Status("orders", None, "worker-1", "streaming", None, NOW, {"tables": [table]})])
    assert completions("backfill", "orders", "p") == ["public.customers"]
    assert completions("log", "show", "orders", "--table", "public.") == ["public.customers"]
    config.unlink()
    assert completions("backfill", "o") == []


def test_promise_5_a_state_directory_that_is_none_is_one_line(config: Path, state: Path) -> None:
    state.mkdir()
    (state / "log").write_text("a file")
    for command in (["log", "show", "orders"], ["log", "trim", "orders", "--through", "1"]):
        line = error_of(catchment(*command), 1)
        assert line.startswith(f"source orders: cannot read {state}/log/orders: Not a directory; run this command as ")
    (state / "log").unlink()
    state.rmdir()
    state.write_text("a file")
    for command in (["status"], ["backfill", "orders"], ["run"]):
        assert "name a directory of its own as [hub] state" in error_of(catchment(*command), 1)
    assert "[hub] state has to be a directory of its own" in error_of(catchment("log", "show", "orders"), 1)
    for place in ("var/below", "/proc/nowhere/var"):
        config.write_text(f'[hub]\nstate = "{place}"\n{CONFIG}')
        (finding,) = [line for line in catchment("check").stdout.splitlines() if line.startswith("error: hub: ")]
        assert f"{place}: " in finding
        assert "name a directory of its own as [hub] state" in finding


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_promise_5_another_user_gets_one_line(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        monkeypatch.chdir(open_to_all)
        Path("catchment.toml").write_text(CONFIG)
        Path("catchment.toml").chmod(0o644)
        _look_as_another_user(Path(open_to_all) / "var")


def _look_as_another_user(state: Path) -> None:
    with StateLock(state), closing(SqliteHub(state / "hub.sqlite")), closing(SqliteLog(state / "log")) as log:
        log.open_writer("orders").close()
    drop = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    for command in (["status"], ["backfill", "orders"], ["log", "show", "orders"], ["source", "drop", "orders"]):
        program = f"from catchment.cli.main import app; {_LOADED}; {drop}; app({command!r})"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 1
        assert line.startswith("error: ")
        assert "Permission denied; run this command as " in line


def test_a_state_of_a_newer_catchment_is_one_line(config: Path, state: Path) -> None:
    state.mkdir()
    with closing(sqlite3.connect(state / "hub.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert error_of(catchment("status"), 1) == (
        f"{state}/hub.sqlite has format 99, this Catchment knows 3; "
        "use the newer Catchment that made it, or give this one another [hub] state"
    )


def test_log_show_says_when_a_table_was_never_there(config: Path, state: Path) -> None:
    state.mkdir(mode=0o700)
    message = Message("note", b"hello", Place(1, Lsn(5), 7, NOW))
    with closing(SqliteLog(state / "log")) as log, closing(log.open_writer("orders")) as writer:
        writer.append(Batch("orders", Lsn(0), Lsn(10), 0, True, NOW, (message,)))
    for follow in ([], ["--follow"]):
        result = catchment("log", "show", "orders", "--table", "public.nothing", *follow)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.splitlines()[-1] == (
            "error: source orders: the log has never seen a table public.nothing; it has no tables yet; "
            "name it schema.table"
        )


def test_a_second_run_is_refused(config: Path, state: Path) -> None:
    with StateLock(state):
        line = error_of(catchment("run"), 1)
    assert "holds" in line
    assert "stop it first" in line


def test_backfill_needs_a_running_hub(config: Path) -> None:
    assert error_of(catchment("backfill", "orders"), 1).endswith("start it with `catchment run`")


def answered(state: Path, kind: str, outcome: str, act: Callable[[], Result]) -> tuple[Request, Result]:
    """What somebody asked for who ran ``act`` while a hub was there that answers one request so."""
    taken: list[Request] = []

    def answer() -> None:
        with closing(SqliteHub(state / "hub.sqlite")) as hub:
            while (request := hub.claim("worker-1", ["orders"], [kind])) is None:
                time.sleep(0.01)
            hub.finish(request.id, outcome)
            taken.append(request)

    with StateLock(state):
        answering = threading.Thread(target=answer)
        answering.start()
        result = act()
        answering.join()
    return taken[0], result


def test_backfill_prints_the_outcome(config: Path, state: Path) -> None:
    request, result = answered(state, "refill", "12 rows read", lambda: catchment("backfill", "orders", "public.a"))
    assert request.arguments == {"tables": ["public.a"], "targets": None, "after": None}
    assert request.by
    assert (result.exit_code, result.stdout, result.stderr) == (0, "12 rows read\n", "")


def test_backfill_without_tables_means_all(config: Path, state: Path) -> None:
    request, result = answered(state, "refill", "12 rows read", lambda: catchment("backfill", "orders"))
    assert request.arguments["tables"] is None
    assert result.exit_code == 0


def test_a_refused_backfill_failed(config: Path, state: Path) -> None:
    refusal = "refused: publication catchment of source orders has no table public.b; name tables as schema.table"
    _, result = answered(state, "refill", refusal, lambda: catchment("backfill", "orders", "public.b"))
    assert error_of(result, 1) == refusal


def test_backfill_need_not_wait(config: Path, state: Path) -> None:
    with StateLock(state):
        result = catchment("backfill", "orders", "--no-wait")
    assert (result.exit_code, result.stdout) == (0, "asked for: request 1\n")


def was_asked(hub: SqliteHub) -> bool:
    try:
        return hub.find(1).worker is None
    except HubError:
        return False


def test_backfill_ends_when_the_hub_does(config: Path, state: Path) -> None:
    lock = StateLock(state)

    def end_once_asked() -> None:
        with closing(SqliteHub(state / "hub.sqlite")) as hub:
            while not was_asked(hub):
                time.sleep(0.01)
        lock.release()

    ending = threading.Thread(target=end_once_asked)
    ending.start()
    line = error_of(catchment("backfill", "orders"), 1)
    ending.join()
    assert "the hub has ended: request 1 is withdrawn, nothing was done" in line


def test_source_drop_asks_the_running_hub(config: Path, state: Path) -> None:
    done = "slot catchment_orders dropped, log removed"
    request, result = answered(state, "drop", done, lambda: catchment("source", "drop", "orders", "--purge"))
    assert request.arguments == {"purge": True}
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{done}\n")


def test_status_is_the_hubs(config: Path, state: Path) -> None:
    now = datetime.now(UTC)
    status = Status("orders", None, "worker-1", "stopped", "source orders: mend it", now, {"position": "0/10"})
    with StateLock(state), closing(SqliteHub(state / "hub.sqlite")) as hub:
        hub.report("worker-1", [status])
        (source,) = json.loads(catchment("status", "--json").stdout)["sources"]
        shown = catchment("status").stdout
    assert (source["state"], source["remedy"], source["position"]) == ("stopped", "source orders: mend it", "0/10")
    assert "stopped: source orders: mend it" in shown.splitlines()
    assert "\x1b" not in shown
    after = catchment("status")
    assert after.exit_code == 0
    assert after.stdout.splitlines()[-1] == "no hub runs here: start it with `catchment run`"


def test_status_makes_no_state_directory(config: Path, state: Path) -> None:
    assert catchment("status", "--json").exit_code == 0
    assert not state.exists()


def test_log_show_and_trim(config: Path, state: Path) -> None:
    column = Column(1, "id", "pg_catalog", "int4", -1, False)
    table = Table(1, "public", "accounts", (column,), ("id",), ReplicaIdentity.DEFAULT, 1)
    message = Message("note", b"hello", Place(1, Lsn(15), 7, NOW))
    state.mkdir(mode=0o700)
    with closing(SqliteLog(state / "log", segment_bytes=1)) as log, closing(log.open_writer("orders")) as writer:
        writer.append(Batch("orders", Lsn(0), Lsn(10), 0, True, NOW, (SchemaChanged(table),)))
        writer.append(Batch("orders", Lsn(10), Lsn(20), 0, True, NOW, (message,)))
    shown = catchment("log", "show", "orders")
    assert [json.loads(line)["event"] for line in shown.stdout.splitlines()] == ["schema_changed", "message"]
    assert shown.stderr == "offsets 1 to 2\n"
    (line,) = catchment("log", "show", "orders", "--after", "1").stdout.splitlines()
    assert json.loads(line)["content"] == "hello"
    (line,) = catchment("log", "show", "orders", "--table", "public.accounts").stdout.splitlines()
    assert json.loads(line)["table"] == "public.accounts"
    trimmed = catchment("log", "trim", "orders", "--through", "1")
    assert (trimmed.exit_code, trimmed.stdout) == (0, "the first offset kept is 2\n")
    assert len(catchment("log", "show", "orders").stdout.splitlines()) == 1
    assert error_of(catchment("log", "show", "orders", "--after", "0"), 1).startswith("source orders: ")
    (newest,) = (state / "log" / "orders").glob("*.sqlite")
    newest.write_bytes(b"no database" * 1000)
    for look in (["show", "orders"], ["trim", "orders", "--through", "1"]):
        said = error_of(catchment("log", *look), 1)
        assert f"source orders: {newest}: " in said
        assert "stop the hub, run `catchment source drop orders` and start it again" in said


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_keyword_that_libpq_does_not_know_is_a_matter_of_configuration(config: Path, command: str) -> None:
    config.write_text(CONFIG.replace("host=127", "hots=127"))
    ended = subprocess.run(
        [sys.executable, "-m", "catchment.cli.main", command], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert lines == ["error: source orders: the dsn has a keyword hots, which libpq does not know; did you mean host?"]


def test_what_may_be_a_piece_of_a_password_is_not_repeated(config: Path) -> None:
    config.write_text(CONFIG.replace("password=", f"password=two {CANARY}="))
    said = error_of(catchment("check"), 2)
    assert CANARY not in said
    assert "the dsn is not a connection string that libpq understands" in said


def test_a_file_that_may_not_be_read_is_one_line(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # what click asks
    assert catchment("status").exit_code == 0
    assert catchment("--config", "catchment.toml", "status").exit_code == 0
    assert catchment("status", "--config", "catchment.toml").exit_code == 0


def test_source_sql_needs_no_connection(config: Path) -> None:
    printed = catchment("source", "sql", "orders").stdout
    assert "CREATE ROLE reader LOGIN REPLICATION;" in printed
    assert 'CREATE ROLE "Odd ""Name" LOGIN' in catchment("source", "sql", "orders", "--role", 'Odd "Name').stdout
    config.write_text('[[source]]\nname = "orders"\ndsn = "service=orders"\n[[feed]]\npath = "{source}.jsonl"\n')
    assert "CREATE ROLE catchment LOGIN REPLICATION;" in catchment("source", "sql", "orders").stdout


def test_a_password_is_never_printed(config: Path) -> None:
    for command in (
        ["status"],
        ["status", "--json"],
        ["check"],
        ["backfill", "orders"],
        ["source", "sql", "orders"],
        ["source", "drop", "orders", "--purge"],
        ["log", "show", "orders"],
        ["check", "customers"],
    ):
        assert CANARY not in catchment(*command).output, command
    for wrong in (
        CONFIG.replace("host=", "hots="),
        CONFIG.replace("host=127.0.0.1", "nonsense"),
        CONFIG + "port = 1\n",
    ):
        config.write_text(wrong)
        for command in (["check"], ["source", "sql", "orders"], ["source", "drop", "orders"], ["status"]):
            assert CANARY not in catchment(*command).output, command


def test_the_supervisors_process_is_light() -> None:
    program = (
        "import sys; import catchment.cli.main; import catchment.cli.run; "
        "print([name for name in ('pyarrow', 'psycopg', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_watching_ends_quietly_at_ctrl_c(config: Path) -> None:
    command = [sys.executable, "-m", "catchment.cli.main", "status", "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        while "no hub runs here" not in watching.stdout.readline():
            assert watching.poll() is None
        os.kill(watching.pid, signal.SIGINT)
        _, complaints = watching.communicate()
    assert (watching.returncode, complaints) == (0, "")


def test_a_terminal_is_drawn_over_until_ctrl_c(config: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "catchment.cli.main", "status", "--watch"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as watching:
        os.close(theirs)
        drawn = b""
        while drawn.count(b"no hub runs here") < 2:
            drawn += os.read(ours, 4096)
        os.kill(watching.pid, signal.SIGINT)
        with suppress(OSError):  # the other end is closed
            while os.read(ours, 4096):
                pass
    os.close(ours)
    assert watching.returncode == 0
    assert b"\x1b[" in drawn
    assert b"Traceback" not in drawn


def test_log_show_follows_until_ctrl_c(config: Path, state: Path) -> None:
    def append(writer: LogWriter, number: int) -> None:
        place = Place(number, Lsn(10 * number + 5), number, NOW)
        message = Message("note", f"number {number}".encode(), place)
        writer.append(Batch("orders", Lsn(10 * number), Lsn(10 * number + 10), 0, True, NOW, (message,)))

    state.mkdir(mode=0o700)
    command = [sys.executable, "-m", "catchment.cli.main", "log", "show", "orders", "--follow"]
    with closing(SqliteLog(state / "log")) as log, closing(log.open_writer("orders")) as writer:
        append(writer, 0)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            for number in range(3):
                assert json.loads(following.stdout.readline())["content"] == f"number {number}"
                append(writer, number + 1)
            os.kill(following.pid, signal.SIGINT)
            _, complaints = following.communicate()
    assert (following.returncode, complaints) == (130, "offsets 1 to 1\n")
