"""The program's own log: lines on stderr, for people on a terminal, for machines elsewhere."""

from __future__ import annotations

import sys

import structlog


def log_to_stderr() -> None:
    """Each event is one line; tracebacks are left out, since they may quote rows."""
    terminal = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=not terminal),
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
