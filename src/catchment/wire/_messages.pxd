from libc.stdint cimport int64_t, uint8_t


cdef class Messages:
    """``count`` messages. The number ``n`` is ``content[ends[n]]`` up to ``content[ends[n + 1]]``."""

    cdef uint8_t* content
    cdef int64_t* ends
    cdef Py_ssize_t count
    cdef Py_ssize_t _content_room, _ends_room
    cdef Messages _whole
    cdef Py_ssize_t _readers

    cdef bint add(self, const uint8_t* message, Py_ssize_t length) noexcept nogil
    cdef refuse(self)

cdef Messages joined(messages)
