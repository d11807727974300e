"""``python docs/reference/generate.py``: writes errors.md, metrics.md, configuration.md and cli.md.

They are made from the code, and tests compare them with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from catchment.api.metrics import METRICS
from catchment.cli.main import app
from catchment.config import REPEATED, SECTIONS
from catchment.model import errors

HEAD = """# Errors

Each is one line: where, what, remedy. Those marked *retried* mend themselves once their cause is gone; all others stop
their loop, alone, and are looked at again every 20 seconds. Generated from `catchment/model/errors.py`.

| error | | what it says | what to do, where it does not say so itself |
|---|---|---|---|
"""

METRICS_HEAD = """# Metrics

`[metrics] listen = "127.0.0.1:9187"` in catchment.toml makes `catchment run` answer three pages there:

| page | |
|---|---|
| `/metrics` | what is below, in Prometheus' text format or OpenMetrics, as the client asks |
| `/livez` | 200 while the supervisor looks after its workers and each of them has reported within 30 s |
| `/readyz` | 200 when every source is streaming, every target is past its first load, and no table is stopped |

The last two answer 503 otherwise, with one line for each reason. A refill beside the stream leaves a hub ready.
Dashboard, alert rules and a systemd unit are in [deploy/](../../deploy/README.md).

- A scrape reads what the workers last reported, every second where there are news, else every 2.5 s; the supervisor
  keeps nothing but the number of restarts. Counters begin anew with their worker, which `rate()` and `increase()` allow
  for.
- What is unknown is missing: lag before the source was first looked at, and most of what a silent loop said.
- The loop with an empty `target` is the collect loop of its source.
- Lag is measured against the source's WAL position as the collect loop last saw it: while a source cannot be reached
  its lag in bytes stands still, as do the values of its slot, and `catchment_loop_up` says so.
- `catchment_commit_to_applied_seconds` has one observation for each batch with changes of the stream, whatever its
  size, by the commit time of its last transaction. A batch is what arrived together: on a quiet source one transaction.
  Rows of backfills are not in it. One time is of the source's clock, the other of the hub's: their difference is part
  of every observation, and where the source's clock is ahead, less than nothing counts as 0.
- After its worker was started again a target counts as loading while any refill of all its tables is under way.
- Rows and names of tables never appear. A source costs about 45 series, and as many again for each target.

Generated from `catchment/api/metrics.py`.

| metric | type | labels | |
|---|---|---|---|
"""

CONFIGURATION_HEAD = """# catchment.toml

`--config PATH`, else `$CATCHMENT_CONFIG`, else `./catchment.toml`; `catchment init` writes one to fill in. Unknown keys
are refused. Paths are relative to the file. Generated from `catchment/config.py`.

| key | default | | for instance |
|---|---|---|---|
"""
CONFIGURATION_FOOT = """
At least one source and one target. While the log is over `max_bytes` because a backfill is under way, it is trimmed
when that has ended. More about [the ODS](ods.md), [feeds](feed.md), [metrics](metrics.md).

## Passwords and other variables

Passwords may come from libpq's own places (`~/.pgpass`, `PGPASSFILE`, service files), or from the environment:
`${NAME}` in a dsn stands for what the variable `NAME` holds, whatever is in it.

- In a value of a keyword/value string, `password=${NAME}`, it is quoted as
  [libpq](https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING) wants it: spaces, quotes and
  backslashes are part of the value, which may be empty. `password='${NAME}'` and `host=${NAME}.internal` do as well.
- In a URI, `postgresql://reader:${NAME}@orders-db/orders`, it is percent-encoded.
- Elsewhere it is put in as it is: `dsn = "${NAME}"` takes a whole dsn from the environment, `"${NAME} dbname=orders"` a
  part of one.

A variable that is not set is an error. What a variable holds is not looked through for further variables.

`CATCHMENT_WIRE=python` or `=native` chooses what decodes: plain Python, or the compiled code that is there where
Catchment was installed with a C compiler, and is taken when nothing is said. `catchment --version` names the one that
runs.
"""

CLI_HEAD = """# The command line

Exit status: 0 good, 1 what was asked failed, 2 usage or configuration, 130 Ctrl-C. What is asked for goes to stdout,
all else to stderr. On a terminal tables and progress are drawn, elsewhere they are plain text. `catchment
--install-completion` has the shell complete commands, sources and tables. Generated from `catchment/cli/`.
"""

CLI_FOOT = """
## What status says

| state | of a source or a target |
|---|---|
| `starting` | it connects, or nothing was heard of it yet |
| `streaming` | all is well |
| `refilling` | tables are being read, of a target all of them; the stream goes on meanwhile |
| `retrying` | it mends itself once the cause is gone |
| `stopped` | it waits for a person, and is looked at again every 20 s |
| `dropped` | the source was removed while the hub runs |
| `silent` | nothing was heard of it for 20 s, and what was known is stale: only how far it had got is shown |
| `not running` | no hub runs it; a source that is new in `catchment.toml` waits for the next start |

`status --json` prints one object: `running`, whether a hub runs here; `remedy`, the sentence of a disk that is full,
else null; `sources` and `targets`, one for each source.

| key | |
|---|---|
| `name`, `source` | the source, or the target and its source |
| `state`, `remedy` | as above; the whole sentence of what is wrong and what to do, else null |
| `stale_since` | when a silent one was last heard of, else null |
| `position`, `frontier` | the WAL position up to which the log of a source, or a target, is complete |
| `lag_bytes`, `lag_seconds` | how much WAL is missing; the age of the last transaction there, 0 when none is missing |
| `lag_history` | `lag_seconds` of the last ten minutes, one each 5 s, the newest last |
| `slot` | of a source: `active`, `wal_status`, `retained_bytes`, as its server says |
| `rows_per_second` | of a source: changes that came in the last second |
| `refills` | of a source: the backfill under way, `tables` to go, `rows` read `of` an estimate, `rows_per_second` |
| `tables` | of a source: `name`, `state`, `remedy` of each, `stopped` also where a target has stopped it |

What is unknown is null.
"""


def tree(kind: type[errors.CatchmentError]) -> Iterator[type[errors.CatchmentError]]:
    """The errors below this one that nothing is below of."""
    below = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    if not below:
        yield kind
    for each in below:
        yield from tree(each)


def render() -> str:
    """The page."""
    rows = [
        f"| `{kind.__name__}` | {'*retried*' if kind.retry else ''} | {(kind.__doc__ or '').strip().splitlines()[0]} "
        f"| {kind.default_remedy} |"
        for kind in tree(errors.CatchmentError)
    ]
    return HEAD + "\n".join(rows) + "\n"


def render_metrics() -> str:
    """The page of metrics."""
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.text} |"
        for metric in METRICS
    ]
    return METRICS_HEAD + "\n".join(rows) + "\n"


def render_configuration() -> str:
    """The page of catchment.toml."""
    rows = []
    for name, section in SECTIONS.items():
        often = f"[[{name}]]" if name in REPEATED else f"[{name}]"
        for key, field in section.model_fields.items():
            default = "" if field.is_required() or field.default in ("", {}) else f"`{_toml(field.default)}`"
            example = (field.examples or [""])[0]
            rows.append(f"| `{often} {key}` | {default} | {field.description} | `{example}` |")
    return CONFIGURATION_HEAD + "\n".join(rows) + "\n" + CONFIGURATION_FOOT


def _toml(value: object) -> str:
    return str(value) if isinstance(value, int) else f'"{value}"'


def render_cli() -> str:
    """The page of the command line."""
    return CLI_HEAD + "".join(_commands(typer.main.get_command(app), "catchment")) + CLI_FOOT


def _commands(command: Any, name: str) -> Iterator[str]:
    """A chapter for each command, those that only hold others left out."""
    below = getattr(command, "commands", {})
    for word, each in below.items():
        if not each.hidden:
            yield from _commands(each, f"{name} {word}")
    if not below:
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        usage = " ".join([name, *(_written(each) for each in arguments)])
        text, _, example = command.help.partition("Example: ")
        yield f"\n## {usage}\n\n{text.strip()}\n\n```\n{example.strip()}\n```\n\n| | |\n|---|---|\n"
        yield "".join(f"| `{_written(each)}` | {each.help} |\n" for each in command.params if each.name != "help")


def _written(parameter: Any) -> str:
    """``NAME``, ``[TABLE]...``, ``--after OFFSET``."""
    if parameter.param_type_name == "argument":
        return parameter.metavar if parameter.required else f"[{parameter.metavar.strip('[].')}]..."
    return f"{parameter.opts[0]} {parameter.metavar}" if parameter.metavar else str(parameter.opts[0])


if __name__ == "__main__":
    Path(__file__).with_name("configuration.md").write_text(render_configuration())
    Path(__file__).with_name("cli.md").write_text(render_cli())
    Path(__file__).with_name("errors.md").write_text(render())
    Path(__file__).with_name("metrics.md").write_text(render_metrics())
