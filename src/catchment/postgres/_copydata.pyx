# cython: language_level=3
"""The inner loop of ``copydata``: out of libpq's buffer, into one of ours, without a step in Python for each message."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, nanosleep, timespec

from catchment.wire._messages cimport Messages

cdef extern from "poll.h" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int POLLIN
    int poll(pollfd* descriptors, unsigned long count, int milliseconds)

# https://www.postgresql.org/docs/current/libpq-copy.html#LIBPQ-COPY-RECEIVE
ctypedef int (*GetCopyData)(void* connection, char** message, int asynchronous) noexcept nogil
ctypedef void (*FreeMemory)(void* message) noexcept nogil
ctypedef int (*ConsumeInput)(void* connection) noexcept nogil


cdef class Libpq:
    """The functions, by their addresses in the libpq that made the connections."""

    cdef GetCopyData get_copy_data
    cdef FreeMemory free_memory
    cdef ConsumeInput consume_input

    def __init__(self, size_t get_copy_data, size_t free_memory, size_t consume_input):
        self.get_copy_data = <GetCopyData> get_copy_data
        self.free_memory = <FreeMemory> free_memory
        self.consume_input = <ConsumeInput> consume_input

    def consume(self, size_t connection):
        """``copydata.consume``: whether it went well. Other threads go on meanwhile, as psycopg does not let them."""
        cdef int good
        with nogil:
            good = self.consume_input(<void*> connection)
        return good == 1

    def wait(
        self, size_t connection, Messages messages not None, int kind, Py_ssize_t header, Py_ssize_t length,
        int socket, int bell, double seconds, double pause, bint asked,
    ):
        """``copydata.wait_for_wal`` of the connection at this address. ``length``: of a keepalive.

        Other threads go on meanwhile: a hundred that only hear of positions would otherwise wait for each other.
        """
        cdef pollfd[2] descriptors
        cdef char* message = NULL
        cdef char* keepalive = NULL
        cdef int count
        cdef double until
        descriptors[0].fd, descriptors[0].events = bell, POLLIN
        descriptors[1].fd, descriptors[1].events = socket, POLLIN
        try:
            with nogil:
                until = _now() + seconds
                while True:
                    count = self.get_copy_data(<void*> connection, &message, 1)
                    if count == length and message[0] == b"k" and message[length - 1] == 0:
                        self.free_memory(keepalive)
                        keepalive, message, count = message, NULL, 0
                        if asked or until <= _now() or _poll(descriptors, 1, min(pause, until - _now())):
                            break
                    elif count != 0 or _poll(descriptors, 2, until - _now()) != READABLE:
                        break
                    elif self.consume_input(<void*> connection) != 1:
                        count = -3
                        break
            position = None if keepalive == NULL else PyBytes_FromStringAndSize(keepalive, length)
            if count <= 0:
                return 0, count, None, position
            if count < header or <unsigned char> message[0] != kind:
                return 0, count, PyBytes_FromStringAndSize(message, count), position
            if not messages.add(<const unsigned char*> message + header, count - header):
                messages.refuse()
            return count, 1, None, position
        finally:
            self.free_memory(keepalive)
            self.free_memory(message)

    def take(
        self, size_t connection, Messages messages not None, Py_ssize_t most_bytes, int kind, Py_ssize_t header,
        int socket, Py_ssize_t full, double seconds, double pause, double quiet,
    ):
        """``copydata._take`` of the connection at this address. ``kind``: of what is wanted, by its first byte; or 0.

        ``full``: so many bytes at once mean that there is more. Other threads go on meanwhile, and this one never waits
        for them: the server would wait for it.
        """
        cdef Py_ssize_t size = 0, last = 0
        cdef char* message = NULL
        cdef int count = 1
        cdef double left, until
        cdef bint good = True
        try:
            with nogil:
                until = _now() + seconds
                while size < most_bytes:
                    count = self.get_copy_data(<void*> connection, &message, 1)
                    if count > 0:
                        if kind and (count < header or <unsigned char> message[0] != kind):
                            break
                        good = messages.add(<const unsigned char*> message + header, count - header)
                        if not good:
                            break
                        self.free_memory(message)
                        message = NULL
                        size += count
                        last += count
                        continue
                    left = until - _now()
                    if count < 0 or left <= 0:
                        break
                    if last == 0 and _poll_readable(socket, min(left, quiet)) == 0:
                        break
                    if pause and 0 < last < full:
                        _sleep(pause)
                    last = 0
                    if self.consume_input(<void*> connection) != 1:
                        count = -3
                        break
            if not good:
                messages.refuse()
            other = None if message == NULL else PyBytes_FromStringAndSize(message, count)
            return size, count if count <= 0 or other is not None else 1, other
        finally:
            self.free_memory(message)


cdef int READABLE = 2


cdef int _poll(pollfd* descriptors, int count, double seconds) noexcept nogil:
    """0 when the time was over, READABLE when the second can be read, something else when it is to end before."""
    cdef int found = poll(descriptors, count, <int> (max(0.0, seconds) * 1000 + 0.999))
    if found <= 0:
        return found
    return READABLE if count > 1 and not descriptors[0].revents else 1


cdef int _poll_readable(int socket, double seconds) noexcept nogil:
    """0 when the time was over."""
    cdef pollfd[1] descriptors
    descriptors[0].fd, descriptors[0].events = socket, POLLIN
    return _poll(descriptors, 1, seconds)


cdef void _sleep(double seconds) noexcept nogil:
    cdef timespec pause
    pause.tv_sec, pause.tv_nsec = <long> seconds, <long> ((seconds - <long> seconds) * 1e9)
    nanosleep(&pause, NULL)


cdef double _now() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9
