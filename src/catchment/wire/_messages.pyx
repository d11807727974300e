# cython: language_level=3
"""Messages in one piece of memory, which compiled code fills and reads without an object for each of them."""

from collections.abc import Sequence

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

cdef enum:
    LEAST_MESSAGES = 16
    LEAST_BYTES = 4096


@cython.no_gc  # there are no cycles, and a collector that cleared a slice would have it free what is not its own
cdef class Messages:
    """A sequence of bytes, and a buffer of them all, one behind the other.

    A slice and a view of the buffer share its memory, which stays as it is for as long as they are there.
    """

    def __dealloc__(self):
        if self._whole is None:
            free(self.content)
            free(self.ends)
        else:
            self._whole._readers -= 1

    def __getbuffer__(self, Py_buffer* view, int flags):
        cdef Py_ssize_t begin = self.ends[0] if self.count else 0
        cdef Py_ssize_t end = self.ends[self.count] if self.count else 0
        PyBuffer_FillInfo(view, self, self.content + begin, end - begin, 1, flags)
        self._readers += 1

    def __releasebuffer__(self, Py_buffer* view):
        self._readers -= 1

    cdef bint add(self, const uint8_t* message, Py_ssize_t length) noexcept nogil:
        """Take it in, unless somebody reads the memory or there is none: false then."""
        cdef Py_ssize_t size = self.ends[self.count] if self.count else 0
        if self._readers or self._whole is not None:
            return False
        if self.count + 1 >= self._ends_room and not more_ends(self):
            return False
        if length > self._content_room - size and not room_for(self, max(<Py_ssize_t> LEAST_BYTES, 2 * (size + length))):
            return False
        if length:  # else there may be nothing yet to copy to
            memcpy(self.content + size, message, length)
        self.ends[0] = 0
        self.count += 1
        self.ends[self.count] = size + length
        return True

    cdef refuse(self):
        """Raise what kept a message from being added."""
        if self._readers or self._whole is not None:
            raise BufferError("these messages are being read")
        raise MemoryError

    def append(self, bytes message not None):
        """Raises BufferError while somebody reads them."""
        if not self.add(message, len(message)):
            self.refuse()

    def clear(self):
        """Let go of the messages, and keep their memory for others. Raises BufferError while somebody reads them."""
        if self._readers or self._whole is not None:
            self.refuse()
        self.count = 0

    def __len__(self):
        return self.count

    def __getitem__(self, place):
        if isinstance(place, slice):
            return part(self, place.indices(self.count))
        cdef Py_ssize_t number = place
        if number < 0:
            number += self.count
        if not 0 <= number < self.count:
            raise IndexError("there are not so many messages")
        cdef int64_t begin = self.ends[number]
        return PyBytes_FromStringAndSize(<char*> self.content + begin, self.ends[number + 1] - begin)


Sequence.register(Messages)


cdef Messages joined(messages):
    """These messages; a copy where they are bytes each."""
    if isinstance(messages, Messages):
        return messages
    cdef Messages copied = Messages()
    if not room_for(copied, max(1, sum(map(len, messages)))):
        raise MemoryError
    for message in messages:
        copied.append(message)
    return copied


cdef Messages part(Messages messages, indices):
    cdef Py_ssize_t start, stop, step
    start, stop, step = indices
    if step != 1:
        raise ValueError("only messages that stand together share their memory")
    cdef Messages shared = Messages()
    shared._whole = messages if messages._whole is None else messages._whole
    shared._whole._readers += 1
    shared.content, shared.ends = messages.content, messages.ends + start
    shared.count = max(0, stop - start)
    return shared


cdef bint more_ends(Messages messages) noexcept nogil:
    cdef Py_ssize_t room = max(<Py_ssize_t> LEAST_MESSAGES, 2 * messages._ends_room)
    cdef void* moved = realloc(messages.ends, room * sizeof(int64_t))
    if moved == NULL:
        return False
    messages.ends, messages._ends_room = <int64_t*> moved, room
    return True


cdef bint room_for(Messages messages, Py_ssize_t room) noexcept nogil:
    cdef void* moved = realloc(messages.content, room)
    if moved == NULL:
        return False
    messages.content, messages._content_room = <uint8_t*> moved, room
    return True
