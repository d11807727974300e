"""``python docs/servers.py orders payments ods``: a throw-away PostgreSQL server for each name, with a database of it.

For the tutorial: works as root too, and Ctrl-C removes everything. Ports are 54321, 54322 and so on.
"""

from __future__ import annotations

import shutil
import signal
import sys
from contextlib import ExitStack

from catchment.demo.binaries import find_binaries, version
from catchment.demo.cluster import Cluster
from catchment.model.errors import ConfigError


def main(names: list[str]) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as running:
        for port, name in enumerate(names, 54321):
            cluster = running.enter_context(Cluster(settings={"port": port}))
            where = f"postgresql://postgres@127.0.0.1:{port}"
            cluster.run("createdb", "--maintenance-db", f"{where}/postgres", name)
            print(f"{where}/{name}", flush=True)
        binaries = find_binaries()
        print(f"PostgreSQL {version(binaries)}; Ctrl-C ends it and removes all data")
        if shutil.which("psql") is None:
            print(f"for psql in other terminals: export PATH={binaries}:$PATH")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ConfigError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
