# cython: language_level=3
"""The inner loop of ``copydata``: out of libpq's buffer, into bytes, without a step in Python for each message."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

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

    def take(self, size_t connection, list messages, Py_ssize_t most_bytes, int kind, Py_ssize_t header):
        """``copydata.take`` of the connection at this address. ``kind``: of what is wanted, by its first byte."""
        cdef Py_ssize_t size = 0
        cdef char* message = NULL
        cdef int count
        while size < most_bytes:
            count = self.get_copy_data(<void*> connection, &message, 1)
            if count <= 0:
                return size, count, None
            try:
                if header and (count < header or <unsigned char> message[0] != kind):
                    return size, count, PyBytes_FromStringAndSize(message, count)
                messages.append(PyBytes_FromStringAndSize(message + header, count - header))
            finally:
                self.free_memory(message)
            size += count
        return size, 1, None

    def take_joined(self, size_t connection, list pieces, Py_ssize_t most_bytes):
        """The same of all that comes, in one piece. Other threads go on meanwhile."""
        cdef Py_ssize_t size = 0, room = 0
        cdef char* joined = NULL
        cdef char* grown
        cdef char* message = NULL
        cdef int count = 1
        try:
            with nogil:
                while size < most_bytes:
                    count = self.get_copy_data(<void*> connection, &message, 1)
                    if count <= 0:
                        break
                    if size + count > room:
                        room = 2 * (size + count)
                        grown = <char*> realloc(joined, room)
                        if grown == NULL:
                            self.free_memory(message)
                            raise MemoryError
                        joined = grown
                    memcpy(joined + size, message, count)
                    self.free_memory(message)
                    size += count
            if size:
                pieces.append(PyBytes_FromStringAndSize(joined, size))
        finally:
            free(joined)
        return size, count if count <= 0 else 1, None
