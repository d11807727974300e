"""PostgreSQL's bytes to Arrow columns and back: the messages of pgoutput, and COPY text.

No input or output. Whole lists of messages and whole buffers come in, whole columns go out. There are two twins of what
does it, equal in all but speed: the reference in plain Python, and a compiled one where that was built. ``twin`` is the
one that runs here.
"""
