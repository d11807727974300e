"""Where a lake is: a directory of a local disk, or a bucket of an object store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from catchment.model.errors import ConfigError
from catchment.targets.lake.local import LocalStore
from catchment.targets.lake.store import Store

_PATIENCE: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}
"""The loop that delivers tries again as well, and says what is the matter."""


def open_store(uri: str, options: Mapping[str, str]) -> Store:
    """The store at a path, a ``file://`` URI, or one of ``s3://``, ``gs://`` and ``az://`` with a bucket and a prefix.

    Nothing is asked of it yet. ``options`` are those of the Rust crate ``object_store``, which delta-rs takes too; they
    go before what the environment says. Raises ConfigError.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        if options:
            raise ConfigError("lake: a lake on a local disk has no options", remedy="remove [lake.options]")
        return LocalStore(Path(rest if separator else uri))
    # It takes a while to load, and most lakes do without it.
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore, S3Store

    from catchment.targets.lake.objects import BucketStore

    kinds: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
    bucket, _, prefix = rest.strip("/").partition("/")
    if scheme not in kinds or not bucket:
        remedy = "write a directory, or s3://, gs:// or az:// with a bucket and a prefix"
        raise ConfigError(f"lake: {uri} is not a place that Catchment knows", remedy=remedy)
    try:
        objects = kinds[scheme](bucket, prefix=prefix or None, config=dict(options), retry_config=_PATIENCE)
    except (BaseError, ValueError) as error:
        what = str(error).partition("\n")[0]
        for value in options.values():
            what = what.replace(value, "…") if value else what
        remedy = "see docs/reference/lake.md for what there is"
        raise ConfigError(f"lake.options: {what}", remedy=remedy) from None
    return BucketStore(objects, f"{scheme}://{rest.strip('/')}")
