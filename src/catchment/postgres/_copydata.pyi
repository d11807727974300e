from catchment.wire.twin import Messages

class Libpq:
    def __init__(self, get_copy_data: int, free_memory: int, consume_input: int) -> None: ...
    def consume(self, connection: int) -> bool: ...
    def wait(
        self,
        connection: int,
        messages: Messages,
        kind: int,
        header: int,
        length: int,
        socket: int,
        bell: int,
        seconds: float,
        pause: float,
        asked: bool,
    ) -> tuple[int, int, bytes | None, bytes | None]: ...
    def take(
        self,
        connection: int,
        messages: Messages,
        most_bytes: int,
        kind: int,
        header: int,
        socket: int,
        full: int,
        seconds: float,
        pause: float,
        quiet: float,
    ) -> tuple[int, int, bytes | None]: ...
