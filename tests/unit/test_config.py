"""catchment.toml: what is read, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from catchment.config import load
from catchment.model.errors import ConfigError
from catchment.postgres.connection import masked, read_dsn

GOOD = """
[[source]]
name = "orders"
dsn = "host=orders password=${SECRET}"
[ods]
dsn = "service=ods"
[[feed]]
path = "feed/{source}.jsonl"
"""


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert "\n" not in str(refused.value)
    return str(refused.value).removeprefix(f"{path}: ")


def test_defaults_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "geheim")
    (path := tmp_path / "catchment.toml").write_text(GOOD)
    settings = load(path)
    (source,) = settings.source
    assert (source.dsn, source.publication, source.slot_name) == (
        "host=orders password='geheim'",
        "catchment",
        "catchment_orders",
    )
    assert settings.hub.state == tmp_path / "var"
    assert settings.feed[0].path == f"{tmp_path}/feed/{{source}}.jsonl"
    assert "geheim" not in repr(settings)


def test_where_a_lake_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "geheim = x")
    path, lakes = tmp_path / "catchment.toml", {}
    for uri in (
        "lake",
        "/data/lake",
        "file:///data/${SECRET}",
        "s3://bucket/a/lake",
        "gs://bucket",
        "az://container/lake",
    ):
        path.write_text(GOOD + f'[lake]\nuri = "{uri}"\n')
        lake = load(path).lake
        assert lake is not None
        lakes[uri] = lake.uri
    assert list(lakes.values()) == [f"{tmp_path}/lake", "/data/lake", "/data/geheim = x", *list(lakes)[3:]]
    path.write_text(GOOD + '[lake]\nuri = "s3://b"\n[lake.options]\nsecret_access_key = "a=${SECRET}"\n')
    settings = load(path)
    assert settings.lake is not None
    assert settings.lake.options == {"secret_access_key": "a=geheim = x"}
    assert "geheim" not in repr(settings)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('dsn = "host', 'dns = "host', "source[0].dns is not a setting; did you mean dsn?"),
        ("[ods]", "[odds]", "odds is not a setting; did you mean ods?"),
        ('name = "orders"', "", 'source[0].name is missing; write for instance name = "orders"'),
        ("[[source]]", "[source]", "source is not written as a section; write [[source]], in double brackets"),
        ("[ods]", "[[ods]]", "ods is not written as a section; write [ods], in single brackets"),
        ('"service=ods"', "5432", "ods.dsn is not a string; write for instance dsn = "),
        ('"service=ods"', '""', "ods.dsn is empty; write for instance dsn = "),
        ("[ods]", '[log]\nmax_bytes = "1 GB"\n[ods]', "log.max_bytes is not a whole number; write for instance max_by"),
        ("[ods]", "[log]\nmax_bytes = 5\n[ods]", "log.max_bytes is too small; write for instance max_bytes = 107374"),
        ("[ods]", "[nothing]\n[ods]", "nothing is not a setting; remove it; there are: hub, log, source, ods, lake"),
        ('"orders"', '"Orders"', "source[0].name: a name is made of a-z"),
        ('"orders"', '"public"', "source[0].name: public is reserved"),
        ("SECRET", "NOT_SET", "source[0].dsn: the environment variable NOT_SET is not set"),
        ("{source}", "orders", "feed[0].path: the path needs {source} in it"),
        ("[ods]", '[lake]\nuri = "ftp://x"\n[ods]', "lake.uri: a lake cannot be at ftp://; write for instance uri = "),
        ("[ods]", '[lake]\nuri = "s3://${NOT_SET}"\n[ods]', "lake.uri: the environment variable NOT_SET is not set"),
        (
            "[ods]",
            '[lake]\nuri = "s3://b"\noptions = { key = "${NOT_SET}" }\n[ods]',
            "lake.options.key: the environment variable NOT_SET is not set",
        ),
        (
            "[ods]",
            '[lake]\nuri = "s3://b"\n[lake.options]\nallow_http = true\n[ods]',
            "lake.options.allow_http is not a string; write it in quotes",
        ),
        ("[ods]", '[[source]]\nname = "orders"\ndsn = "x"\n[ods]', "source orders is there twice"),
        ("[ods]", '[lake]\nuri = "l"\nkeep = "1w"\n[ods]', "lake.keep: a duration is a whole number and s, m, h or d"),
        ("[ods]", '[lake]\nuri = "l"\nkeep = 7\n[ods]', "lake.keep: a duration is a whole number and s, m, h or d"),
        ("dsn = ", "dsn ", "Expected '=' after a key"),
    ],
)
def test_each_mistake_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, sentence: str
) -> None:
    monkeypatch.setenv("SECRET", "geheim")
    assert refusal(tmp_path / "catchment.toml", GOOD.replace(old, new, 1)).startswith(sentence)


def test_a_hub_without_a_target_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "catchment.toml", GOOD.partition("[ods]")[0].replace("${SECRET}", "x")) == (
        "there is no target; add [ods] with a dsn, [lake] with a uri, or [[feed]] with a path"
    )


@pytest.mark.parametrize("dsn", ["postgresql://u:ca@nary@host/db", "postgresql://u:canary/rest@host/db"])
def test_promise_5_a_password_that_libpq_would_take_for_a_host_is_refused_without_printing_it(dsn: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_dsn(dsn)
    assert "percent-encode the password" in str(refused.value)
    assert "nary" not in str(refused.value)


def test_a_dsn_is_printed_without_its_password() -> None:
    assert "geheim" not in masked("host=h password=geheim")
    assert "h" in masked("host=h password=geheim")


@pytest.mark.parametrize(
    ("listen", "address"), [("127.0.0.1:9187", ("127.0.0.1", 9187)), ("[::1]:80", ("::1", 80)), ("hub:1", ("hub", 1))]
)
def test_metrics_are_listened_for_at_host_and_port(tmp_path: Path, listen: str, address: tuple[str, int]) -> None:
    text = GOOD.replace("${SECRET}", "x")
    (path := tmp_path / "catchment.toml").write_text(f'{text}[metrics]\nlisten = "{listen}"\n')
    settings = load(path).metrics
    assert settings is not None
    assert settings.address == address


@pytest.mark.parametrize("listen", ["9187", ":9187", "::1:9187", "127.0.0.1:0", "127.0.0.1:65536", "http://hub:9187"])
def test_what_is_no_address_is_refused(tmp_path: Path, listen: str) -> None:
    text = GOOD.replace("${SECRET}", "x") + f'[metrics]\nlisten = "{listen}"\n'
    assert refusal(tmp_path / "catchment.toml", text).startswith("metrics.listen: an address is host:port")


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            '"orders.public.t.n" = "decimal(39,0)"',
            "lake.columns.orders.public.t.n: a column is given a decimal of at most",
        ),
        (
            '"orders.public.t.n" = "decimal(5,6)"',
            "lake.columns.orders.public.t.n: a column is given a decimal of at most",
        ),
        ('"orders.public.t.n" = "double"', "lake.columns.orders.public.t.n: a column is given a decimal of at most"),
        (
            'orders.public.t.n = "decimal(5,2)"',
            "lake.columns.orders: a column is given a decimal of at most 38 digits, its",
        ),
        (
            '"t.n" = "decimal(5,2)"',
            "lake.columns: t.n does not begin with a source's name or does not go on to a column",
        ),
        (
            '"stock.public.t.n" = "decimal(5,2)"',
            "lake.columns: stock.public.t.n does not begin with a source's name or",
        ),
    ],
)
def test_a_type_of_a_column_that_cannot_be_is_refused(tmp_path: Path, entry: str, sentence: str) -> None:
    lake = '[lake]\nuri = "lake"\n[lake.columns]\n'
    said = refusal(tmp_path / "catchment.toml", GOOD.replace("${SECRET}", "x") + lake + entry)
    assert said.startswith(sentence), said
    assert "write" in said
