"""PostgreSQL v3: the decoder."""

from __future__ import annotations

from capd.decoders.conversation import Conversation
from capd.decoders.postgresql.answers import Answers
from capd.decoders.postgresql.backend import Backend
from capd.decoders.postgresql.frontend import Frontend


class PostgresqlDecoder(Conversation):
    """Decodes one PostgreSQL connection. Use `receive` and `next_event`."""

    def __init__(self) -> None:
        answers = Answers()
        super().__init__(Frontend(answers), Backend(answers))
