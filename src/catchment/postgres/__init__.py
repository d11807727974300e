"""Talking to a PostgreSQL server: connection, catalog, slot, stream, snapshot reading, preflight checks."""
