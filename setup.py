"""Builds the inner loops that are compiled where there is a C compiler; everything else is in pyproject.toml."""

from __future__ import annotations

from setuptools import Extension, setup

MODULES = ("catchment.wire._messages", "catchment.wire._native", "catchment.postgres._copydata")

# Optional: without them the installation is whole, and the reference runs.
setup(ext_modules=[Extension(name, [f"src/{name.replace('.', '/')}.pyx"], optional=True) for name in MODULES])
