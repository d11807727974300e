# cython: language_level=3
"""The inner loop of ``copydata``: out of libpq's buffer, into bytes, without a step in Python for each message."""

from cpython.bytes cimport PyBytes_FromStringAndSize

# https://www.postgresql.org/docs/current/libpq-copy.html#LIBPQ-COPY-RECEIVE
ctypedef int (*GetCopyData)(void* connection, char** message, int asynchronous) noexcept nogil
ctypedef void (*FreeMemory)(void* message) noexcept nogil


cdef class Libpq:
    """The two functions, by their addresses in the libpq that made the connections."""

    cdef GetCopyData get_copy_data
    cdef FreeMemory free_memory

    def __init__(self, size_t get_copy_data, size_t free_memory):
        self.get_copy_data = <GetCopyData> get_copy_data
        self.free_memory = <FreeMemory> free_memory

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
