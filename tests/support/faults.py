"""What may happen to a hub and its servers at any moment."""

from __future__ import annotations

import random

import psycopg
from running_hub import RunningHub

from catchment.demo.cluster import Cluster


def inject(chance: random.Random, hub: RunningHub, servers: dict[str, Cluster]) -> None:
    """One fault: a process of the hub is killed, connections to one of the servers are cut, or it crashes."""
    at_servers = [f"{what}{name}" for what in ("cut ", "") for name in servers]
    fault = chance.choice(["worker", "worker", "worker", "supervisor", *at_servers])
    print(f"fault: {fault}")
    server = servers.get(fault.removeprefix("cut "))
    if fault == "worker":
        hub.kill_worker(chance)
    elif server is None:
        hub.kill_supervisor()
        hub.start()
    elif fault.startswith("cut"):
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'catchment'")
    else:
        server.restart(mode="immediate")
