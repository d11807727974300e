"""A column of every type that a source may have, and values for it as PostgreSQL reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

Texts = st.SearchStrategy[str]

USER_TYPES = """
CREATE SCHEMA "My Types";
CREATE TYPE "My Types"."Mood ☃" AS ENUM ('', 'sad', 'it''s', 'a "b"', 'x,y', 'ü\\');
CREATE TYPE pair AS (a int, b text, c numeric, d "My Types"."Mood ☃");
CREATE TYPE nested AS (one pair, many pair[]);
CREATE TYPE floats AS RANGE (subtype = float8);
CREATE DOMAIN amount AS numeric(12, 2) CHECK (VALUE > -1e9);
CREATE DOMAIN small_amount AS amount CHECK (VALUE < 1e9);
CREATE DOMAIN grid AS int[];
CREATE DOMAIN pairs AS pair[];
CREATE DOMAIN feeling AS "My Types"."Mood ☃";
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A type as CREATE TABLE takes it, values of it, and its type in the ODS where that is not the same.

    ``edges`` are always among the values, ``fresh`` says how many others are. ``needs``: an extension, or ``xml``;
    ``since``: PostgreSQL's major version.
    """

    type: str
    values: Texts
    edges: Sequence[str] = ()
    ods: str | None = None
    needs: str | None = None
    since: int = 15
    fresh: int = 10

    def some(self) -> list[str]:
        """Values, the edges first."""
        return [*self.edges, *_generated(self.values, self.fresh)]


def _generated(strategy: Texts, count: int) -> list[str]:
    """Collected first, so that a transaction and a comparison can take many at once."""
    found: list[str] = []

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: str) -> None:
        found.append(value)

    collect()
    return found


def words(most: int | None = 12) -> Texts:
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=most)


def integers(bits: int, signed: bool = True) -> Texts:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return st.integers(low, high).map(str)


def edges_of(bits: int, signed: bool = True) -> tuple[str, ...]:
    return (str(-(1 << bits - 1)), str((1 << bits - 1) - 1)) if signed else ("0", str((1 << bits) - 1))


def joined(form: str, *parts: st.SearchStrategy[object]) -> Texts:
    return st.tuples(*parts).map(lambda values: form.format(*values))


def listed(part: Texts, join: str, least: int, most: int) -> Texts:
    return st.lists(part, min_size=least, max_size=most).map(join.join)


def quoted(text: str) -> str:
    """As in arrays, composites and ranges."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@st.composite
def arrays(draw: st.DrawFn, items: Texts, delimiter: str = ",") -> str:
    """One to three dimensions, with nulls, some with lower bounds of their own."""
    sizes = draw(st.lists(st.integers(1, 2), min_size=1, max_size=3))
    bounds = draw(st.none() | st.lists(st.integers(-3, 3), min_size=len(sizes), max_size=len(sizes)))

    def level(left: list[int]) -> str:
        if not left:
            return draw(st.just("NULL") | items.map(quoted))
        return "{" + delimiter.join(level(left[1:]) for _ in range(left[0])) + "}"

    prefix = "".join(f"[{low}:{low + size - 1}]" for low, size in zip(bounds or (), sizes, strict=False))
    return f"{prefix}=" + level(sizes) if prefix else level(sizes)


def array_of(kind: Kind, delimiter: str = ",") -> Kind:
    extremes = [f"{{{delimiter.join(map(quoted, kind.edges))}}}"] if kind.edges else []
    return replace(
        kind,
        type=f"{kind.type}[]",
        values=arrays(kind.values, delimiter),
        edges=("{}", *extremes),
        fresh=4,
        ods=kind.ods and ("text" if kind.ods == "text" else f"{kind.ods}[]"),
    )


@st.composite
def ranges(draw: st.DrawFn, bounds: st.SearchStrategy[object], text: Callable[[object], str] = str) -> str:
    low, high = sorted(draw(st.tuples(bounds, bounds)))
    left, right = draw(st.sampled_from(["[", "("])), draw(st.sampled_from(["]", ")"]))
    start, end = draw(st.sampled_from([(text(low), text(high)), ("", text(high)), (text(low), ""), ("", "")]))
    return f"{left}{start and quoted(start)},{end and quoted(end)}{right}"


def ranges_of(name: str, multi: str, values: Texts, **more: str) -> list[Kind]:
    several = st.lists(values, max_size=3).map(lambda each: "{" + ",".join(each) + "}")
    return [Kind(name, values, ("empty", "(,)"), **more), Kind(multi, several, ("{}", "{(,)}"), **more)]


@st.composite
def tsqueries(draw: st.DrawFn) -> str:
    parts = draw(st.lists(lexemes(), min_size=1, max_size=4))
    text = parts[0] + draw(st.sampled_from(["", ":*", ":AB", ":*D"]))
    for part in parts[1:]:
        operator = draw(st.sampled_from(["&", "|", "<->", "<7>", "& !"]))
        text = f"({text}) {operator} {part}"
    return text


def lexemes() -> Texts:
    return words().filter(bool).map(lambda text: "'" + text.replace("\\", "\\\\").replace("'", "''") + "'")


@st.composite
def tsvectors(draw: st.DrawFn) -> str:
    places = st.lists(joined("{}{}", st.integers(1, 16383), st.sampled_from(["", "A", "B", "C"])), max_size=3)
    found = [(lexeme, draw(places)) for lexeme in draw(st.lists(lexemes(), max_size=4))]
    return " ".join(lexeme + (":" + ",".join(at) if at else "") for lexeme, at in found)


@st.composite
def snapshots(draw: st.DrawFn) -> str:
    low = draw(st.integers(0, 1 << 30)) << 32 | draw(st.integers(3, 1 << 31))
    open_ones = sorted(draw(st.sets(st.integers(low, low + 100), max_size=4)))
    high = low + 101
    return f"{low}:{high}:{','.join(map(str, open_ones))}"


_real = st.floats(allow_nan=False, allow_infinity=False).map(repr)
_single = st.floats(width=32).map(repr)
_moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 30))
_era = st.sampled_from(["", " BC"])
_dates = joined("{:%m-%d} {:04}{}", st.dates(), st.integers(1, 4712), _era).map(
    lambda text: f"{text[6:10]}-{text[:5]}{text[10:]}".replace("-02-29", "-02-28")
)
_times = st.times().map(str)
_stamps = joined("{} {}{}", _dates.map(lambda text: text.removesuffix(" BC")), _times, _era)
_zones = joined("{}{:02}:{:02}", st.sampled_from("+-"), st.integers(0, 15), st.integers(0, 59))
_decimals = joined(
    "{}{}.{}",
    st.sampled_from(["", "-"]),
    st.text("0123456789", min_size=1, max_size=60),
    st.text("0123456789", max_size=40),
)
_spans = joined(
    "{} months {} days {} microseconds",
    st.integers(-(10**7), 10**7),
    st.integers(-(10**9), 10**9),
    st.integers(-(10**15), 10**15),
)
_bits = st.text("01", max_size=70)
_hex = st.binary(max_size=20).map(bytes.hex)
_mac = st.binary(min_size=6, max_size=6).map(lambda value: value.hex(":"))
_mac8 = st.binary(min_size=8, max_size=8).map(lambda value: value.hex(":"))
_network = st.ip_addresses().flatmap(lambda at: joined("{}/{}", st.just(at), st.integers(0, at.max_prefixlen)))
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words(5), inner, max_size=3),
    max_leaves=6,
).map(json.dumps)
_point = joined("({},{})", _real, _real)
_points = listed(_point, ",", 1, 4)
_pair = joined("({},{},{},{})", integers(32), words().map(quoted), _decimals, st.sampled_from(["sad", '"it\'s"', ""]))
_labels = st.sampled_from(["", "sad", "it's", 'a "b"', "x,y", "ü\\"])

_plain = [
    Kind("boolean", st.sampled_from(["t", "f"])),
    *(Kind(name, integers(bits), edges_of(bits)) for name, bits in (("smallint", 16), ("integer", 32), ("bigint", 64))),
    Kind("real", _single, ("NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e38")),
    Kind("double precision", st.floats().map(repr), ("NaN", "-Infinity", "-0", "5e-324", "1.7976931348623157e308")),
    Kind("numeric", _decimals, ("NaN", "Infinity", "-Infinity", "1.0", "1.00", "-0.0", "1e131071", "1e-16383")),
    Kind("numeric(12,3)", st.integers(-(10**8), 10**8).map(lambda value: f"{value / 1000}"), ("NaN",)),
    Kind("numeric(10,-3)", integers(32), ("12345678500",)),
    Kind("numeric(3,5)", st.integers(-999, 999).map(lambda value: f"{value}e-5")),
    Kind("text", words(None), ("", "\\N", "\\.", "NULL", "\t\n\r\b\f\v\\", "\x01\x7f", "☃" * 100_000)),
    Kind("character varying(20)", words(20), ("",)),
    Kind("character(5)", words(5), ("", " a")),
    Kind('"char"', st.characters(codec="ascii", exclude_characters="\0"), ("",)),
    Kind("name", words(15), ("",)),
    Kind("bytea", _hex.map(lambda text: f"\\x{text}"), ("\\x", f"\\x{bytes(range(256)).hex()}")),
    Kind("date", _dates, ("infinity", "-infinity", "4714-11-24 BC", "5874897-12-31")),
    Kind(
        "timestamp without time zone",
        _stamps,
        ("infinity", "-infinity", "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999"),
    ),
    Kind("timestamp(3) without time zone", _stamps),
    Kind("timestamp with time zone", joined("{}{}", _moments, _zones), ("infinity", "4714-11-24 00:00:00+00 BC")),
    Kind("time without time zone", _times, ("24:00:00",)),
    Kind("time(0) with time zone", joined("{}{}", _times, _zones)),
    Kind("time with time zone", joined("{}{}", _times, _zones), ("24:00:00-15:59:59", "00:00:00+15:59:59")),
    Kind("interval", _spans, ("178000000 years", "-178000000 years", "2147483647 days", "0", "-1 day 1 us", "-0.5 s")),
    Kind("interval(2)", _spans, ("infinity", "-infinity"), since=17),
    Kind("interval year to month", joined("{} months", st.integers(-(10**6), 10**6))),
    Kind("uuid", st.uuids().map(str)),
    Kind("json", _json, ('{"a" :  1.50, "a":\t2}', '"\\u0000\\ud800"', "1e999")),
    Kind("jsonb", _json.filter(lambda text: "\\u0000" not in text), ('{"b": 1.50, "a": 100e-2}', "null", '""')),
    Kind("jsonpath", st.sampled_from(["$", 'strict $."a b"[*] ? (@.c > 1.50)', "$.**{2 to last}", '"\\"" + 1'])),
    Kind("bit(5)", st.text("01", min_size=5, max_size=5)),
    Kind("bit varying", _bits, ("",)),
    Kind("bit varying(9)", st.text("01", max_size=9)),
    Kind("inet", _network, ("10.1.2.3", "::ffff:1.2.3.4", "0.0.0.0/0")),
    Kind("cidr", st.ip_addresses().map(str), ("10.0.0.0/8", "::/0")),
    Kind("macaddr", _mac),
    Kind("macaddr8", _mac8),
    Kind(
        "money",
        st.integers(-(10**16), 10**16).map(lambda value: f"{value}.37"),
        ("-92233720368547758.08", "92233720368547758.07"),
    ),
    Kind("tsvector", tsvectors()),
    Kind("tsquery", tsqueries(), ("",)),
    Kind("point", _point, ("(NaN,Infinity)", "(-0,5e-324)")),
    Kind("line", joined("{{{},{},{}}}", st.floats(1e-3, 1e9), st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))),
    Kind("lseg", joined("[{},{}]", _point, _point)),
    Kind("box", joined("{},{}", _point, _point)),
    Kind("path", _points.map(lambda text: f"[{text}]") | _points.map(lambda text: f"({text})")),
    Kind("polygon", _points.map(lambda text: f"({text})")),
    Kind("circle", joined("<{},{}>", _point, st.floats(0, 1e300))),
    Kind("oid", integers(32, signed=False), edges_of(32, signed=False)),
    Kind("xid", integers(32, signed=False), edges_of(32, signed=False)),
    Kind("cid", integers(32, signed=False), edges_of(32, signed=False)),
    Kind("xid8", integers(64, signed=False), edges_of(64, signed=False)),
    Kind("tid", joined("({},{})", integers(32, signed=False), integers(16, signed=False))),
    Kind("pg_lsn", joined("{:X}/{:X}", st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), ("0/0",)),
    Kind("pg_snapshot", snapshots()),
    Kind("txid_snapshot", snapshots()),
    Kind("int2vector", listed(integers(16), " ", 0, 5)),
    Kind("oidvector", listed(integers(32, signed=False), " ", 0, 5)),
    Kind("refcursor", words()),
    Kind("aclitem", st.sampled_from(["=r/postgres", "postgres=arwdDxt/postgres"]), ods="text"),
    Kind("regclass", st.sampled_from(["pg_class", '"My Types"."a ""b"""', "-", "99999"]), ods="text"),
    Kind("regcollation", st.sampled_from(['"C"', "-", "99999"]), ods="text"),
    Kind("regconfig", st.sampled_from(["english", "simple"]), ods="text"),
    Kind("regdictionary", st.sampled_from(["simple", "-"]), ods="text"),
    Kind("regnamespace", st.sampled_from(["pg_catalog", '"My Types"']), ods="text"),
    Kind("regoper", st.sampled_from(["||/", "99999"]), ods="text"),
    Kind("regoperator", st.sampled_from(["+(integer,integer)", "-(NONE,integer)"]), ods="text"),
    Kind("regproc", st.sampled_from(["now", "-"]), ods="text"),
    Kind("regprocedure", st.sampled_from(["abs(integer)", "now()"]), ods="text"),
    Kind("regrole", st.sampled_from(["postgres", "99999"]), ods="text"),
    Kind("regtype", st.sampled_from(["integer[]", '"My Types"."Mood ☃"', "-"]), ods="text"),
    Kind("xml", st.sampled_from(["", "words &amp; <a b='c'>x</a><d/>", "<?pi x?><a xmlns='u'/>"]), needs="xml"),
]
_ranges = [
    *ranges_of("int4range", "int4multirange", ranges(st.integers(-(2**31), 2**31 - 2))),
    *ranges_of("int8range", "int8multirange", ranges(st.integers(-(2**63), 2**63 - 2))),
    *ranges_of("numrange", "nummultirange", ranges(st.decimals(allow_nan=False, allow_infinity=False, places=4))),
    *ranges_of("daterange", "datemultirange", ranges(st.dates(max_value=datetime(9999, 1, 1, tzinfo=UTC).date()))),
    *ranges_of("tsrange", "tsmultirange", ranges(_moments)),
    *ranges_of("tstzrange", "tstzmultirange", ranges(_moments, lambda moment: f"{moment}+00")),
]
_extended = [
    Kind("citext", words(), ("",), needs="citext"),
    Kind(
        "hstore",
        st.dictionaries(words(), st.none() | words(), max_size=3).map(
            lambda each: ",".join(f"{quoted(k)}=>{'NULL' if v is None else quoted(v)}" for k, v in each.items())
        ),
        needs="hstore",
    ),
    Kind("ltree", listed(st.text("abcXYZ_019", min_size=1, max_size=9), ".", 0, 5), needs="ltree"),
    Kind("lquery", st.sampled_from(["a.*.b", "*{2,}.foo@|bar%*.!c"]), needs="ltree"),
    Kind("ltxtquery", st.sampled_from(["a & b*@", "!(x | y%)"]), needs="ltree"),
    Kind("cube", joined("({},{}),(3,4)", _real, _real), ods="text", needs="cube"),  # which the test keeps from the ODS
    Kind(
        "vector",
        listed(st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr), ",", 1, 5).map("[{}]".format),
        needs="vector",
    ),
    Kind("vector(3)", st.just("[1,-2.5,1e-30]"), needs="vector"),
    Kind("halfvec", st.just("[1,-2.5,0.33]"), needs="vector"),
    Kind("sparsevec", st.sampled_from(["{1:1.5,7:-2}/9", "{}/3"]), needs="vector"),
]
_own = [
    Kind('"My Types"."Mood ☃"', _labels, ods="text"),
    Kind("pair", _pair, ("(,,,)", '(1,"",NaN,"ü\\\\")'), ods="text"),
    Kind("nested", joined('({},"{{}}")', _pair.map(quoted)), ("(,)",), ods="text"),
    *ranges_of("floats", "floats_multirange", ranges(st.floats(-1e300, 1e300), repr), ods="text"),
    Kind("small_amount", st.integers(-(10**9), 10**9).map(lambda value: f"{value}e-2"), ods="numeric(12,2)"),
    Kind("grid", arrays(integers(32)), ods="integer[]"),
    Kind("pairs", arrays(_pair), ods="text"),
    Kind("feeling", _labels, ods="text"),
]


def kinds(available: Iterable[str], version: int) -> list[Kind]:
    """All of a server of this major version with these extensions; arrays of them too."""
    there = {None, *available}
    scalars = [kind for kind in (*_plain, *_ranges, *_extended, *_own) if kind.needs in there and kind.since <= version]
    domains = {"small_amount", "grid", "pairs", "feeling"}
    # A domain's array cannot be anything that the ODS has; one of int2vector reads as a vector's own elements.
    arrays_too = [
        replace(each, ods="text") if kind.type in domains else each
        for kind in scalars
        for each in [array_of(kind, ";" if kind.type == "box" else ",")]
    ]
    return [*scalars, *arrays_too]
