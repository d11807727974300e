"""``make fuzz``: both twins of ``catchment.wire`` on streams and texts that are whole, damaged or random.

Every round has a seed of its own, counted on from the first, so that one round can be run again:
``make fuzz FUZZ="--seed 1234 --seconds 0"``. Ends with status 1 at the first round in which the twins differ.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pgoutput_messages as pg
import pyarrow as pa
from wire_twins import REFERENCE, Piece, Twin, compiled, gathered, told_of_parts, told_of_stream, told_of_text

import catchment.wire
from catchment.model.table import ReplicaIdentity
from catchment.wire.messages import Relation, RelationColumn

_VALUES = [None, pg.UNCHANGED, "", "a", "1234567", "naïve 🦦", "\t\\N\n", b"\0", "x" * 300, "y" * 70_000]
_WEIGHTS = [4, 2, 3, 8, 8, 4, 4, 1, 2, 0.05]
_PIECES = [b"\\", b"\t", b"\n", b"N", b"x4", b"1", b"778", b"a", "é🦦".encode(), b"\xff", b"\0", b"plain words of text"]
_NUMBERS = [b"\0\0", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1"]


def stream(draw: random.Random) -> list[bytes]:
    """Transactions over a few tables, in about the order in which a server would send them."""
    relations = {oid: _relation(draw, oid) for oid in draw.sample(range(1, 200), draw.randint(1, 6))}
    messages = [pg.relation(relation) for relation in relations.values()]
    lsn = 100
    for _ in range(draw.randint(1, 6)):
        messages.append(pg.begin(lsn, draw.getrandbits(32), draw.randint(-(10**15), 10**15)))
        for _ in range(draw.choice([1, 5, 150])):
            oid = draw.choice(list(relations))
            width = len(relations[oid].columns)
            new, old = (draw.choices(_VALUES, _WEIGHTS, k=width) for _ in range(2))
            match draw.randrange(12):
                case 0:
                    relations[oid] = _relation(draw, oid)
                    messages.append(pg.relation(relations[oid]))
                case 1:
                    messages.append(draw.choice([pg.truncate(oid), pg.logical_message("p", b"c"), pg.origin("o")]))
                case 2 | 3:
                    messages.append(pg.update(oid, new, **draw.choice([{"key": old}, {"old": old}])))
                case 4:
                    messages.append(pg.delete(oid, **draw.choice([{"key": old}, {"old": old}])))
                case 5 | 6:
                    messages.append(pg.update(oid, new))
                case _:
                    messages.append(pg.insert(oid, new))
        messages.append(pg.commit(lsn, lsn + 8))
        lsn += draw.choice([8, 50])
    return messages


def _relation(draw: random.Random, oid: int) -> Relation:
    columns = tuple(RelationColumn(f"column_{n}", 25, -1, n == 0) for n in range(draw.choice([0, 1, 2, 3, 8, 40])))
    return Relation(oid, "public", f"table_{oid}", ReplicaIdentity.DEFAULT, columns)


def damage(draw: random.Random, data: bytes) -> bytes:
    """The bytes with some of them changed, left out, doubled, or taken for a number of another size."""
    place = draw.randint(0, len(data))
    match draw.randrange(6):
        case 0:
            return data[:place]
        case 1:
            return data[:place] + draw.randbytes(draw.randint(1, 9)) + data[place:]
        case 2:
            return data[:place] + data[place + draw.randint(1, 9) :]
        case 3:
            return data[:place] + data[max(0, place - draw.randint(1, 30)) :]
        case 4:
            number = draw.choice(_NUMBERS)
            return data[:place] + number + data[place + len(number) :]
        case _:
            return data[:place] + bytes([draw.randrange(256)]) + data[place + 1 :]


def divide(draw: random.Random, messages: list[bytes]) -> list[Piece]:
    """The messages in pieces as they could arrive."""
    pieces, rest = [], messages
    while rest:
        count = draw.choice([1, 3, 70, len(rest)])
        limits = draw.choice([(1 << 30, 1 << 30), (draw.randint(1, 9), 1 << 30), (1 << 30, draw.randint(1, 999))])
        pieces.append(Piece(rest[:count], *limits, draw.random() < 0.5, draw.random() < 0.5))
        rest = rest[count:]
    return pieces


def text(draw: random.Random) -> tuple[bytes, int]:
    """COPY text, or nearly, and the number of its columns."""
    columns = draw.choice([0, 1, 2, 8])
    rows = draw.choice([0, 1, 5, 200])
    made = REFERENCE.render([_column(draw, rows) for _ in range(columns)])
    data = bytes(made) if draw.random() < 0.6 else b"".join(draw.choices(_PIECES, k=draw.randint(0, 300))) + b"\n"
    for _ in range(draw.choice([0, 0, 1, 3])):
        data = damage(draw, data)
    return data, columns


def _column(draw: random.Random, rows: int) -> Any:
    texts = [None, "", "a", "é🦦", "\\N", "\t\n\r\\", "x" * 100]
    return pa.array(draw.choices(texts, k=rows), pa.string())


def one_round(seed: int, native: Twin) -> str:
    """What kind of round it was. Raises AssertionError when the twins differ."""
    draw = random.Random(seed)
    if draw.random() < 0.3:
        data, columns = text(draw)
        told = told_of_text(native, data, columns)
        assert told == told_of_text(REFERENCE, data, columns), f"the twins differ: --seed {seed} --seconds 0"
        return "text refused" if told and isinstance(told[0], str) else "text read"
    messages = stream(draw)
    for _ in range(draw.choice([0, 1, 1, 4])):
        place = draw.randrange(len(messages))
        messages[place] = damage(draw, messages[place]) if draw.random() < 0.9 else draw.randbytes(draw.randint(0, 60))
    if draw.random() < 0.1:
        draw.shuffle(messages)
    pieces, resume = divide(draw, messages), draw.choice([0, 108, 200])
    told = told_of_stream(native, resume, 0, pieces)
    assert told == told_of_stream(REFERENCE, resume, 0, pieces), f"the twins differ: --seed {seed} --seconds 0"
    assert native.kinds(messages) == REFERENCE.kinds(messages), f"the twins differ: --seed {seed} --seconds 0"
    few, xid, cut = messages[:20], draw.getrandbits(32), draw.randrange(40)
    aborted = {xid, *(int.from_bytes(message[1:5]) for message in few[:3])}
    parts = told_of_parts(REFERENCE, few, xid, aborted, cut)
    for arrived in (few, gathered(native, few)):
        assert told_of_parts(native, arrived, xid, aborted, cut) == parts, (
            f"the twins differ: --seed {seed} --seconds 0"
        )
    return "stream refused" if isinstance(told[-1], str) else "stream read"


def main() -> None:
    """Run rounds until the time is over, one at least."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--built", type=Path, help="a directory that `setup.py build_ext --build-lib` wrote to")
    arguments = parser.parse_args()
    if arguments.built:
        catchment.wire.__path__.insert(0, str(arguments.built / "catchment" / "wire"))
    native = compiled()
    print(f"seed {arguments.seed}, {arguments.seconds:.0f} s", flush=True)
    deadline = time.monotonic() + arguments.seconds
    rounds: Counter[str] = Counter()
    seed = arguments.seed
    while not rounds or time.monotonic() < deadline:
        rounds[one_round(seed, native)] += 1
        seed += 1
    print(f"{rounds.total()} rounds, the twins agree: {dict(sorted(rounds.items()))}")


if __name__ == "__main__":
    main()
