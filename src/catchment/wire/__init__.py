"""PostgreSQL's bytes to Arrow columns and back: the messages of pgoutput, and COPY text.

No input or output. Whole lists of messages and whole buffers come in, whole columns go out, so that a compiled twin
of ``Decoder`` can stand in its place here without a change anywhere else.
"""

from catchment.wire import copytext
from catchment.wire.messages import Control, LogicalMessage, Relation, RelationColumn, Truncate
from catchment.wire.pgoutput import Decoder

__all__ = ["Control", "Decoder", "LogicalMessage", "Relation", "RelationColumn", "Truncate", "copytext"]
