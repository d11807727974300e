# cython: language_level=3, boundscheck=False, wraparound=False
"""The inner loops of the compiled twin: bytes to Arrow buffers and back, without a Python object for a value.

Each loop takes what is well formed and stops at the first thing that is not, which is left to the reference: that knows
how to say what is wrong with it. Nothing is read behind the end of a message and nothing written behind the end of a
buffer, whatever the bytes are. Long runs let go of the GIL.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport INT32_MAX, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from catchment.wire import control

from catchment.wire._messages cimport Messages, joined

cdef enum:
    LEAST_ROOM = 64
    LEAST_BYTES = 256
    MOST_MESSAGES = 8192  # of one run, which may have to copy them first
    FEW_MESSAGES = 64  # a shorter run is over before somebody else would have taken the GIL
    FEW_BYTES = 16384

cdef enum Outcome:
    DONE
    LEFT  # to the reference
    UNKNOWN_TABLE
    FULL
    NO_MEMORY


cdef class Memory:
    """Bytes that somebody else reads; freed with the last reference."""

    cdef void* start
    cdef Py_ssize_t size

    def __dealloc__(self):
        free(self.start)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.start, self.size, 1, flags)


cdef handed(void** start, Py_ssize_t size):
    """The bytes, which are the view's from now on; what was set aside beyond them is given back."""
    cdef Memory memory = Memory()
    cdef void* fitting = realloc(start[0], max(size, 1))
    memory.start = start[0] if fitting == NULL else fitting
    memory.size = size
    start[0] = NULL
    if memory.start == NULL:
        raise MemoryError
    return memoryview(memory)


cdef bint resized(void** start, size_t size) noexcept nogil:
    cdef void* moved = realloc(start[0], size)
    if moved == NULL:
        return False
    start[0] = moved
    return True


# Columns of strings, laid out as Arrow's: https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-layout

cdef struct Column:
    uint8_t* content
    size_t size
    size_t room
    int32_t* ends  # ends[0] is 0
    uint8_t* valid
    Py_ssize_t nulls


cdef struct Columns:
    int width
    Py_ssize_t count
    Py_ssize_t room
    Column* each


cdef bint begin_columns(Columns* columns, int width) noexcept nogil:
    columns.width = width
    columns.count = columns.room = 0
    columns.each = <Column*> malloc(max(width, 1) * sizeof(Column))
    if columns.each == NULL:
        return False
    memset(columns.each, 0, width * sizeof(Column))
    return True


cdef void end_columns(Columns* columns) noexcept nogil:
    cdef int number
    if columns.each == NULL:
        return
    for number in range(columns.width):
        free(columns.each[number].content)
        free(columns.each[number].ends)
        free(columns.each[number].valid)
    free(columns.each)
    columns.each = NULL


cdef bint more_room(Columns* columns) noexcept nogil:
    """Room for another row, at least."""
    cdef Py_ssize_t room = max(<Py_ssize_t> LEAST_ROOM, 2 * columns.room)
    cdef Column* column
    cdef int number
    for number in range(columns.width):
        column = &columns.each[number]
        if not resized(<void**> &column.ends, (room + 1) * sizeof(int32_t)):
            return False
        if not resized(<void**> &column.valid, room // 8 + 1):
            return False
        column.ends[0] = 0
    columns.room = room
    return True


cdef bint more_content(Column* column, size_t size) noexcept nogil:
    """Room for so many more bytes. An Arrow string cannot end behind 2 GB."""
    cdef size_t wanted = column.size + size
    cdef size_t room = max(<size_t> LEAST_BYTES, 2 * column.room)
    if wanted > INT32_MAX:
        return False
    while room < wanted:
        room *= 2
    if not resized(<void**> &column.content, room):
        return False
    column.room = room
    return True


cdef inline bint add_content(Column* column, const uint8_t* start, size_t size) noexcept nogil:
    if size > column.room - column.size and not more_content(column, size):
        return False
    if size:  # else there may be nothing yet to copy to
        memcpy(column.content + column.size, start, size)
        column.size += size
    return True


cdef inline void end_value(Column* column, Py_ssize_t row, bint valid) noexcept nogil:
    if row & 7 == 0:
        column.valid[row >> 3] = 0
    if valid:
        column.valid[row >> 3] |= <uint8_t> (1 << (row & 7))
    else:
        column.nulls += 1
    column.ends[row + 1] = <int32_t> column.size


cdef bint is_ascii(const uint8_t* content, size_t size) noexcept nogil:
    cdef size_t at = 0
    cdef uint64_t seen = 0
    cdef uint64_t eight
    while size - at >= sizeof(uint64_t):
        memcpy(&eight, content + at, sizeof(uint64_t))
        seen |= eight
        at += sizeof(uint64_t)
    while at < size:
        seen |= content[at]
        at += 1
    return seen & <uint64_t> 0x8080808080808080U == 0


cdef list buffers(Columns* columns):
    """For each column whether it is all ASCII, its validity, null when every value is, its ends and its content."""
    cdef list result = []
    cdef Column* column
    cdef int number
    for number in range(columns.width):
        column = &columns.each[number]
        result.append((
            is_ascii(column.content, column.size),
            handed(<void**> &column.valid, (columns.count + 7) // 8) if column.nulls else None,
            handed(<void**> &column.ends, (columns.count + 1) * sizeof(int32_t)),
            handed(<void**> &column.content, column.size),
        ))
    return result


# The messages of pgoutput: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html

cdef enum:
    ROW_HEAD = 6  # kind, oid, marker
    BEGIN_SIZE = 21
    COMMIT_SIZE = 26

cdef int64_t FIRST_TIME = control.FIRST_TIME
cdef int64_t LAST_TIME = control.LAST_TIME


cdef struct Rows:
    uint32_t oid
    Columns columns
    uint8_t* ops
    int64_t* sequences
    int64_t* lsns
    int64_t* xids
    int64_t* times
    int32_t* unchanged_ends  # unchanged_ends[0] is 0
    int16_t* unchanged
    size_t unchanged_room


cdef struct Place:
    int64_t sequence
    int64_t lsn
    int64_t xid
    int64_t time


cdef Rows* begin_rows(uint32_t oid, int width) noexcept nogil:
    cdef Rows* rows = <Rows*> malloc(sizeof(Rows))
    if rows == NULL:
        return NULL
    memset(rows, 0, sizeof(Rows))
    rows.oid = oid
    if not begin_columns(&rows.columns, width) or not more_rows(rows):
        end_rows(rows)
        return NULL
    return rows


cdef void end_rows(Rows* rows) noexcept nogil:
    end_columns(&rows.columns)
    free(rows.ops)
    free(rows.sequences)
    free(rows.lsns)
    free(rows.xids)
    free(rows.times)
    free(rows.unchanged_ends)
    free(rows.unchanged)
    free(rows)


cdef bint more_rows(Rows* rows) noexcept nogil:
    """Room for another row, at least."""
    if not more_room(&rows.columns):
        return False
    cdef size_t numbers = rows.columns.room * sizeof(int64_t)
    if not (
        resized(<void**> &rows.ops, rows.columns.room)
        and resized(<void**> &rows.sequences, numbers)
        and resized(<void**> &rows.lsns, numbers)
        and resized(<void**> &rows.xids, numbers)
        and resized(<void**> &rows.times, numbers)
        and resized(<void**> &rows.unchanged_ends, (rows.columns.room + 1) * sizeof(int32_t))
    ):
        return False
    rows.unchanged_ends[0] = 0
    return True


cdef bint add_unchanged(Rows* rows, int32_t end, int number) noexcept nogil:
    cdef size_t room = max(<size_t> LEAST_ROOM, 2 * rows.unchanged_room)
    if <size_t> end == rows.unchanged_room:
        if end > INT32_MAX // 2 or not resized(<void**> &rows.unchanged, room * sizeof(int16_t)):
            return False
        rows.unchanged_room = room
    rows.unchanged[end] = <int16_t> number
    return True


cdef inline uint32_t unsigned_16(const uint8_t* at) noexcept nogil:
    return <uint32_t> at[0] << 8 | at[1]


cdef inline uint32_t unsigned_32(const uint8_t* at) noexcept nogil:
    return <uint32_t> at[0] << 24 | <uint32_t> at[1] << 16 | <uint32_t> at[2] << 8 | at[3]


cdef inline int64_t signed_64(const uint8_t* at) noexcept nogil:
    return <int64_t> (<uint64_t> unsigned_32(at) << 32 | unsigned_32(at + 4))


cdef Outcome add_row(
    Rows* rows, const uint8_t* message, Py_ssize_t length, Py_ssize_t* position, uint8_t op, const Place* place
) noexcept nogil:
    """Take in the TupleData at ``position``, and move that behind it."""
    cdef Columns* columns = &rows.columns
    cdef Py_ssize_t row = columns.count
    cdef Py_ssize_t at = position[0]
    cdef const uint8_t* start
    cdef Column* column
    cdef int32_t unchanged_end
    cdef uint32_t size
    cdef uint8_t kind
    cdef int number
    if length - at < 2 or unsigned_16(message + at) != <uint32_t> columns.width:
        return LEFT
    if row == columns.room and not more_rows(rows):
        return NO_MEMORY
    unchanged_end = rows.unchanged_ends[row]
    at += 2
    for number in range(columns.width):
        if at >= length:
            return LEFT
        column = &columns.each[number]
        kind = message[at]
        if kind == c"t":
            if length - at < 5:
                return LEFT
            size = unsigned_32(message + at + 1)
            at += 5
            if <Py_ssize_t> size > length - at:
                return LEFT
            start = message + at
            if not add_content(column, start, size):
                return NO_MEMORY
            at += size
        elif kind == c"u":
            if not add_unchanged(rows, unchanged_end, number):
                return NO_MEMORY
            unchanged_end += 1
            at += 1
        elif kind == c"n":
            at += 1
        else:
            return LEFT
        end_value(column, row, kind == c"t")
    rows.unchanged_ends[row + 1] = unchanged_end
    rows.ops[row] = op
    rows.sequences[row] = place.sequence
    rows.lsns[row] = place.lsn
    rows.xids[row] = place.xid
    rows.times[row] = place.time
    columns.count = row + 1
    position[0] = at
    return DONE


cdef inline uint8_t first_op(uint8_t kind, uint8_t marker) noexcept nogil:
    """What the first row of such a message is; 0 when there is no such message."""
    if kind == c"I":
        return c"c" if marker == c"N" else 0
    if kind == c"U" and marker == c"N":
        return c"u"
    if marker == c"K" or marker == c"O":
        return c"b" if kind == c"U" else c"d"
    return 0


cdef class Held:
    """The rows decoded since the last ``take``, by relation in order of first appearance.

    ``begun``, ``full`` and ``unknown`` are about the last run: the xids of the transactions that began and are not
    skipped; whether a limit ended it; the oid of the row in front of which it stopped, since no relation was added
    for it, else null. The other attributes say where the stream stands.
    """

    cdef public int64_t sequence, count, size, until, lsn, time, xid
    cdef public bint in_transaction, skipping
    cdef readonly list begun
    cdef readonly bint full
    cdef readonly object unknown
    cdef int64_t resume
    cdef Rows** held
    cdef Rows** by_oid  # those that rows can still be added to
    cdef Py_ssize_t held_count, by_oid_count, room
    cdef list relations
    cdef uint32_t* begun_xids
    cdef Py_ssize_t begun_count

    def __cinit__(self, int64_t resume):
        self.resume = resume
        self.relations = []
        self.begun_xids = <uint32_t*> malloc(MOST_MESSAGES * sizeof(uint32_t))
        if self.begun_xids == NULL:
            raise MemoryError

    def __dealloc__(self):
        self._end()
        free(self.held)
        free(self.by_oid)
        free(self.begun_xids)

    cdef void _end(self):
        cdef Py_ssize_t number
        for number in range(self.held_count):
            end_rows(self.held[number])
        self.held_count = self.by_oid_count = 0

    def add(self, uint32_t oid, relation):
        """Rows with this oid are the relation's from here on."""
        cdef Py_ssize_t room = max(8, 2 * self.room)
        cdef Py_ssize_t place = self._place(oid)
        cdef Py_ssize_t number
        if self.held_count == self.room:
            if not (
                resized(<void**> &self.held, room * sizeof(Rows*)) and resized(<void**> &self.by_oid, room * sizeof(Rows*))
            ):
                raise MemoryError
            self.room = room
        cdef Rows* rows = begin_rows(oid, len(relation.columns))
        if rows == NULL:
            raise MemoryError
        self.held[self.held_count] = rows
        self.held_count += 1
        self.relations.append(relation)
        for number in range(self.by_oid_count, place, -1):
            self.by_oid[number] = self.by_oid[number - 1]
        self.by_oid[place] = rows
        self.by_oid_count += 1

    def forget(self, uint32_t oid):
        """The relation has another shape from here on: what is held of it stays as it is."""
        cdef Py_ssize_t place = self._place(oid)
        cdef Py_ssize_t number
        if place < self.by_oid_count and self.by_oid[place].oid == oid:
            self.by_oid_count -= 1
            for number in range(place, self.by_oid_count):
                self.by_oid[number] = self.by_oid[number + 1]

    cdef Py_ssize_t _place(self, uint32_t oid) noexcept nogil:
        """Where the oid is in ``by_oid``, or would be."""
        cdef Py_ssize_t first = 0
        cdef Py_ssize_t last = self.by_oid_count
        cdef Py_ssize_t middle
        while first < last:
            middle = (first + last) // 2
            if self.by_oid[middle].oid < oid:
                first = middle + 1
            else:
                last = middle
        return first

    def run(self, messages, Py_ssize_t start, int64_t most_rows, int64_t most_bytes):
        """Take in Begins, Commits and rows from ``start`` on.

        Returns the index of the first message left. Ends behind the row that reaches a limit, in front of a row whose
        relation has to be added first, and in front of whatever else it meets.
        """
        cdef Py_ssize_t index = start
        cdef Py_ssize_t done
        cdef uint32_t unknown = 0
        cdef Outcome outcome = DONE
        cdef Messages mine
        self.begun = []
        while outcome == DONE and index < len(messages):
            mine = joined(messages[index : index + MOST_MESSAGES])
            done = 0
            self.begun_count = 0
            if mine.count <= FEW_MESSAGES:
                outcome = self._run(mine.content, mine.ends, mine.count, &done, most_rows, most_bytes, &unknown)
            else:
                with nogil:
                    outcome = self._run(mine.content, mine.ends, mine.count, &done, most_rows, most_bytes, &unknown)
            if outcome == NO_MEMORY:
                raise MemoryError
            index += done
            self.begun += [self.begun_xids[number] for number in range(self.begun_count)]
        self.full = outcome == FULL
        self.unknown = unknown if outcome == UNKNOWN_TABLE else None
        return index

    cdef Outcome _run(
        self,
        const uint8_t* content,
        const int64_t* ends,
        Py_ssize_t count,
        Py_ssize_t* index,
        int64_t most_rows,
        int64_t most_bytes,
        uint32_t* unknown,
    ) noexcept nogil:
        cdef Rows* rows = NULL
        cdef Outcome outcome
        cdef const uint8_t* message
        cdef Py_ssize_t length, place
        cdef uint32_t oid
        cdef uint8_t kind
        while index[0] < count:
            message = content + ends[index[0]]
            length = ends[index[0] + 1] - ends[index[0]]
            kind = message[0] if length else 0
            index[0] += 1
            if kind == c"I" or kind == c"U" or kind == c"D":
                if not self.in_transaction:
                    break
                if self.skipping:
                    continue
                if length < ROW_HEAD:
                    break
                oid = unsigned_32(message + 1)
                if rows == NULL or rows.oid != oid:
                    place = self._place(oid)
                    if place == self.by_oid_count or self.by_oid[place].oid != oid:
                        unknown[0] = oid
                        index[0] -= 1
                        return UNKNOWN_TABLE
                    rows = self.by_oid[place]
                outcome = self._row(rows, kind, message, length)
                if outcome == NO_MEMORY:
                    return NO_MEMORY
                if outcome == LEFT:
                    break
                if self.count >= most_rows or self.size >= most_bytes:
                    return FULL
            elif not (kind == c"B" and self._begin(message, length) or kind == c"C" and self._commit(message, length)):
                break
        else:
            return DONE
        index[0] -= 1
        return LEFT

    cdef inline Outcome _row(
        self, Rows* rows, uint8_t kind, const uint8_t* message, Py_ssize_t length
    ) noexcept nogil:
        cdef uint8_t op = first_op(kind, message[ROW_HEAD - 1])
        cdef Place place = Place(self.sequence + 1, self.lsn, self.xid, self.time)
        cdef Py_ssize_t position = ROW_HEAD
        cdef Outcome outcome
        if op == 0:
            return LEFT
        outcome = add_row(rows, message, length, &position, op, &place)
        if outcome == DONE and op == c"b":
            if position >= length or message[position] != c"N":
                return LEFT
            position += 1
            place.sequence += 1
            outcome = add_row(rows, message, length, &position, c"u", &place)
        if outcome != DONE:
            return outcome
        if position != length:
            return LEFT
        self.count += place.sequence - self.sequence
        self.sequence = place.sequence
        self.size += length
        return DONE

    cdef inline bint _begin(self, const uint8_t* message, Py_ssize_t length) noexcept nogil:
        cdef int64_t lsn, time
        if self.in_transaction or length != BEGIN_SIZE:
            return False
        lsn, time = signed_64(message + 1), signed_64(message + 9)
        if lsn < 0 or not FIRST_TIME <= time <= LAST_TIME:
            return False
        self.lsn, self.time, self.xid = lsn, time, unsigned_32(message + 17)
        self.in_transaction = True
        self.skipping = lsn < self.resume
        if not self.skipping:
            self.begun_xids[self.begun_count] = <uint32_t> self.xid
            self.begun_count += 1
        return True

    cdef inline bint _commit(self, const uint8_t* message, Py_ssize_t length) noexcept nogil:
        cdef int64_t end
        if not self.in_transaction or length != COMMIT_SIZE or message[1] != 0:
            return False
        end = signed_64(message + 10)
        if signed_64(message + 2) != self.lsn or end < 0:
            return False
        self.in_transaction = False
        if not self.skipping:
            self.until = end
        return True

    def take(self):
        """For each relation: itself, the number of rows, the buffers of ``_op``, ``_seq``, ``_lsn``, ``_xid``,
        ``_committed_at`` (from 2000 on) and ``_unchanged`` (ends and numbers; null when there are none), and those of
        the columns. None are held any more.
        """
        cdef list result = []
        cdef Py_ssize_t number, count, numbers, unchanged_count
        cdef Rows* rows
        for number in range(self.held_count):
            rows = self.held[number]
            count = rows.columns.count
            numbers = count * sizeof(int64_t)
            unchanged_count = rows.unchanged_ends[count]
            unchanged = None
            if unchanged_count:
                unchanged = (
                    handed(<void**> &rows.unchanged_ends, (count + 1) * sizeof(int32_t)),
                    handed(<void**> &rows.unchanged, unchanged_count * sizeof(int16_t)),
                )
            result.append((
                self.relations[number],
                count,
                handed(<void**> &rows.ops, count),
                handed(<void**> &rows.sequences, numbers),
                handed(<void**> &rows.lsns, numbers),
                handed(<void**> &rows.xids, numbers),
                handed(<void**> &rows.times, numbers),
                unchanged,
                buffers(&rows.columns),
            ))
        self._end()
        self.relations = []
        self.count = self.size = 0
        return result


def kinds(messages):
    """The first byte of each message, 0 for an empty one."""
    cdef Messages mine = joined(messages)
    cdef bytearray result = bytearray(mine.count)
    cdef uint8_t* first = result
    cdef Py_ssize_t number
    for number in range(mine.count):
        first[number] = mine.content[mine.ends[number]] if mine.ends[number] < mine.ends[number + 1] else 0
    return bytes(result)


# The records of transactions in progress; see parts.py.

cdef enum:
    RECORD_SIZE = 8
    XID_SIZE = 4


cdef inline void write_32(uint8_t* at, uint32_t number) noexcept nogil:
    at[0], at[1] = <uint8_t> (number >> 24), <uint8_t> (number >> 16)
    at[2], at[3] = <uint8_t> (number >> 8), <uint8_t> number


cdef inline Py_ssize_t xid_size(const uint8_t* message, Py_ssize_t length) noexcept nogil:
    """The size of the transaction's number in a message inside a block; negative for one that is left."""
    if length and message[0] == c"O":
        return 0
    if length < 1 + XID_SIZE or message[0] in (c"S", c"E", c"c", c"A"):
        return -1
    return XID_SIZE


def pack(messages, Py_ssize_t start, uint32_t xid):
    cdef Messages mine = joined(messages[start:])
    cdef Py_ssize_t count = mine.count
    cdef Py_ssize_t room = 0
    cdef Py_ssize_t number, length, skipped
    cdef const uint8_t* message
    cdef uint8_t* at
    for number in range(mine.count):
        length = mine.ends[number + 1] - mine.ends[number]
        skipped = xid_size(mine.content + mine.ends[number], length)
        if skipped < 0:
            count = number
            break
        room += RECORD_SIZE + length - skipped
    cdef bytes records = PyBytes_FromStringAndSize(NULL, room)
    at = <uint8_t*> <char*> records
    for number in range(count):
        message, length = mine.content + mine.ends[number], mine.ends[number + 1] - mine.ends[number]
        skipped = xid_size(message, length)
        write_32(at, unsigned_32(message + 1) if skipped else xid)
        write_32(at + XID_SIZE, <uint32_t> (length - skipped))
        at[RECORD_SIZE] = message[0]
        memcpy(at + RECORD_SIZE + 1, message + 1 + skipped, length - skipped - 1)
        at += RECORD_SIZE + length - skipped
    return start + count, records


def unpack(bytes data, aborted):
    cdef const uint8_t* start = data
    cdef Py_ssize_t size = len(data)
    cdef Py_ssize_t end = 0
    cdef Py_ssize_t length
    cdef bint some = len(aborted) > 0
    cdef Messages messages = Messages()
    while size - end >= RECORD_SIZE:
        length = unsigned_32(start + end + XID_SIZE)
        if size - end - RECORD_SIZE < length:
            break
        if not some or unsigned_32(start + end) not in aborted:
            if not messages.add(start + end + RECORD_SIZE, length):
                messages.refuse()
        end += RECORD_SIZE + length
    return end, messages


# COPY text: https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS

cdef uint8_t[256] STOPS  # what ends a run of plain bytes when COPY text is read
cdef uint8_t[256] ESCAPED  # what is written behind a backslash for this byte; 0 for one that stands for itself
cdef uint8_t[256] MEANS
cdef int _byte
for _byte in range(256):
    STOPS[_byte] = ESCAPED[_byte] = 0
    MEANS[_byte] = <uint8_t> _byte
for _byte, _letter in zip(b"\t\n\\", b"tn\\"):
    STOPS[_byte] = 1
for _byte, _letter in zip(b"\\\n\r\t", b"\\nrt"):
    ESCAPED[_byte] = _letter
for _byte, _letter in zip(b"bfnrtv", b"\b\f\n\r\t\v"):
    MEANS[_byte] = _letter


def parse(data, int width):
    """``buffers`` of the columns of whole rows, and their number; null when these bytes are not well formed."""
    cdef Columns columns
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    cdef const uint8_t* start = <const uint8_t*> view.buf
    cdef Py_ssize_t size = view.len
    cdef Outcome outcome
    columns.each = NULL
    try:
        if not begin_columns(&columns, width):
            raise MemoryError
        if size <= FEW_BYTES:
            outcome = parse_rows(&columns, start, start + size)
        else:
            with nogil:
                outcome = parse_rows(&columns, start, start + size)
        if outcome == NO_MEMORY:
            raise MemoryError
        return (columns.count, buffers(&columns)) if outcome == DONE else None
    finally:
        end_columns(&columns)
        PyBuffer_Release(&view)


cdef Outcome parse_rows(Columns* columns, const uint8_t* at, const uint8_t* end) noexcept nogil:
    cdef Outcome outcome
    cdef int number
    if columns.width < 1:
        return LEFT
    if not more_room(columns):
        return NO_MEMORY
    while at < end:
        if columns.count == columns.room and not more_room(columns):
            return NO_MEMORY
        for number in range(columns.width):
            outcome = parse_value(&columns.each[number], columns.count, &at, end)
            if outcome != DONE:
                return outcome
            if at[0] != (c"\n" if number == columns.width - 1 else c"\t"):
                return LEFT
            at += 1
        columns.count += 1
    return DONE


cdef inline Outcome parse_value(
    Column* column, Py_ssize_t row, const uint8_t** place, const uint8_t* end
) noexcept nogil:
    """Read the value at ``place`` and leave that at the separator behind it."""
    cdef const uint8_t* begin = place[0]
    cdef const uint8_t* at = begin
    cdef const uint8_t* plain
    cdef uint8_t meant
    while True:
        plain = at
        while at < end and not STOPS[at[0]]:
            at += 1
        if at == end:
            return LEFT
        if not add_content(column, plain, at - plain):
            return NO_MEMORY
        if at[0] != c"\\":
            end_value(column, row, True)
            place[0] = at
            return DONE
        at += 1
        if at == end:
            return LEFT
        if at[0] == c"N" and at == begin + 1 and at + 1 < end and (at[1] == c"\t" or at[1] == c"\n"):
            end_value(column, row, False)
            place[0] = at + 1
            return DONE
        meant = escaped(&at, end)
        if not add_content(column, &meant, 1):
            return NO_MEMORY


cdef inline int digit(uint8_t letter) noexcept nogil:
    """The value of a hexadecimal digit; 16 for anything else."""
    if c"0" <= letter <= c"9":
        return letter - c"0"
    letter |= 0x20
    return letter - c"a" + 10 if c"a" <= letter <= c"f" else 16


cdef uint8_t escaped(const uint8_t** place, const uint8_t* end) noexcept nogil:
    """What stands behind a backslash; ``place`` moves from its first byte, before ``end``, to behind its last."""
    cdef const uint8_t* at = place[0]
    cdef uint8_t meant = MEANS[at[0]]
    cdef int base = 8 if digit(at[0]) < 8 else 16
    cdef int most = 3 if base == 8 else 2
    cdef int code = 0
    cdef int digits = 0
    if base == 16:
        if at[0] != c"x":
            place[0] = at + 1
            return meant
        at += 1
    while digits < most and at + digits < end and digit(at[digits]) < base:
        code = code * base + digit(at[digits])
        digits += 1
    place[0] = at + digits
    return <uint8_t> (code & 0xFF) if digits else meant


cdef struct Strings:
    const uint8_t* valid  # null when every value is
    const int32_t* ends
    const uint8_t* content
    Py_ssize_t offset
    int32_t size  # of the content
    bint plain  # nothing in it has to be escaped


def render(columns):
    """The rows of these string arrays of equal length, as COPY text."""
    cdef Py_ssize_t width = len(columns)
    cdef Py_ssize_t count = len(columns[0]) if width else 0
    cdef Strings* each
    cdef Py_ssize_t number, size, escapes
    cdef Py_ssize_t room = 0
    cdef void* text = NULL
    cdef list kept = []  # what we read from without the GIL
    if count == 0:
        return memoryview(b"")
    each = <Strings*> malloc(width * sizeof(Strings))
    if each == NULL:
        raise MemoryError
    try:
        for number in range(width):
            valid, ends, content = columns[number].buffers()
            kept.append((valid, ends, content))
            each[number].valid = NULL
            if valid is not None:
                each[number].valid = <const uint8_t*> <size_t> valid.address
            each[number].ends = <const int32_t*> <size_t> ends.address
            if content is None:
                content = ends  # of which nothing is read
            each[number].content = <const uint8_t*> <size_t> content.address
            each[number].offset = columns[number].offset
            each[number].size = min(content.size, INT32_MAX)
            room += 2 * <Py_ssize_t> columns[number].null_count
        if not all_in_order(each, width, count):
            raise IndexError("the offsets of an Arrow array are not in order")
        with nogil:
            for number in range(width):
                room += count + text_size(&each[number], count)
            text = malloc(room)
            if text != NULL:
                size = render_rows(each, width, count, <uint8_t*> text)
        if text == NULL:
            raise MemoryError
        return handed(&text, size)
    finally:
        free(each)


cdef bint all_in_order(const Strings* columns, Py_ssize_t width, Py_ssize_t count) noexcept nogil:
    cdef const int32_t* ends
    cdef Py_ssize_t number, row
    cdef bint good = True
    for number in range(width):
        ends = columns[number].ends + columns[number].offset
        good &= ends[0] >= 0 and ends[count] <= columns[number].size
        for row in range(count):
            good &= ends[row] <= ends[row + 1]
    return good


cdef Py_ssize_t text_size(Strings* column, Py_ssize_t count) noexcept nogil:
    """The size of the content when it is escaped; notes whether anything has to be."""
    cdef const uint8_t* at = column.content + column.ends[column.offset]
    cdef const uint8_t* end = column.content + column.ends[column.offset + count]
    cdef Py_ssize_t size = end - at
    cdef Py_ssize_t escapes = 0
    while at < end:
        escapes += (at[0] == c"\\") | (at[0] == c"\t") | (at[0] == c"\n") | (at[0] == c"\r")
        at += 1
    column.plain = escapes == 0
    return size + escapes


cdef Py_ssize_t render_rows(const Strings* columns, Py_ssize_t width, Py_ssize_t count, uint8_t* text) noexcept nogil:
    cdef const Strings* column
    cdef const uint8_t* content
    cdef Py_ssize_t row, number, place
    cdef uint8_t* at = text
    cdef int32_t size, byte
    for row in range(count):
        for number in range(width):
            column = &columns[number]
            place = column.offset + row
            if column.valid != NULL and not column.valid[place >> 3] >> (place & 7) & 1:
                at[0], at[1] = c"\\", c"N"
                at += 2
            else:
                content = column.content + column.ends[place]
                size = column.ends[place + 1] - column.ends[place]
                if column.plain:
                    memcpy(at, content, size)
                    at += size
                else:
                    for byte in range(size):
                        if ESCAPED[content[byte]]:
                            at[0], at[1] = c"\\", ESCAPED[content[byte]]
                            at += 2
                        else:
                            at[0] = content[byte]
                            at += 1
            at[0] = c"\t" if number < width - 1 else c"\n"
            at += 1
    return at - text
