"""Builds the compiled twin of ``catchment.wire`` where there is a C compiler; everything else is in pyproject.toml."""

from __future__ import annotations

from setuptools import Extension, setup

# Optional: without it the installation is whole, and the reference runs.
setup(ext_modules=[Extension("catchment.wire._native", ["src/catchment/wire/_native.pyx"], optional=True)])
