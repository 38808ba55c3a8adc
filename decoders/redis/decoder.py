"""Redis: the decoder, and what its messages carry.

What lives here: the two directions put together. What must not: their messages (request.py, response.py), reading (commands.py,
reader.py).

`exchange` is a command's number; its answer has the same, as far as one can tell (answers.py). `fields`:

- `command`: `command` (its name in upper case), `arguments` [string..], `inline` (True for a line of words), `omitted`
  (arguments that are not given). The summary is the command as redis-cli would take it.
- `nothing`: none; an empty line or array, which no server answers.
- `reply`: `kind` (RESP's word for its outermost type), `value`. Of the answer to EXEC `commands`: exchanges of the commands
  of which it holds the answers. `secret` is True where it may hold a password.
- `error`: `kind`, `code` (the first word), `message`.
- `push`: `kind`, `value`: messages of channels, invalidations; confirmations of SUBSCRIBE have its exchange.
- `monitor`: `kind`, `value`: a line that MONITOR tells.

Strings are as in values.py, other values as in reader.py. Arguments that are passwords (secret_arguments.py) are in no field.

A message longer than its limit (wire.py) or hit by a gap has `incomplete` and what could be read.
"""

from __future__ import annotations

from capd.decoders.conversation import Conversation
from capd.decoders.redis.answers import Answers
from capd.decoders.redis.request import Request
from capd.decoders.redis.response import Response
from capd.decoders.redis.turns import Turns


class RedisDecoder(Conversation):
    """Decodes one Redis connection. Use `receive` and `next_event`."""

    def __init__(self) -> None:
        answers = Answers()
        turns = Turns(answers)
        super().__init__(Request(answers, turns), Response(answers, turns))
