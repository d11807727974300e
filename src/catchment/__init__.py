"""Catchment: every committed change of many PostgreSQL databases, recreated exactly."""
