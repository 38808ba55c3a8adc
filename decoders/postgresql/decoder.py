"""PostgreSQL v3: the decoder, and what its messages carry.

What lives here: the two directions put together. What must not: their messages (frontend.py, backend.py), framing (side.py).

`type` is the protocol documentation's name of a message, `exchange` its statement (answers.py). `fields`, from the client:

- `StartupMessage`: `protocol` ("3.0"), `parameters` {name: value}.
- `SSLRequest`, `GSSENCRequest`: none. `CancelRequest`: `process`.
- `PasswordMessage`, `SASLResponse`, `GSSResponse`: none. `SASLInitialResponse`: `mechanism` if it is a known one.
- `Query`: `sql`. `Parse`: `statement`, `sql`, `parameter_types` [name or None..]. The summary is the SQL text.
- `Bind`: `portal`, `statement`, `parameters` [cell..], `parameter_formats` [0|1..], `result_formats` [0|1..].
- `Execute`: `portal`, `rows_max` (0: all). The summary of Bind and Execute is the
  statement's SQL text if its Parse was seen.
- `Describe`, `Close`: `kind` ("statement", "portal"), `name`. `Sync`, `Flush`, `Terminate`, `CopyDone`: none.
- `FunctionCall`: `function` (object id), `arguments` [cell..], `result_format`. `CopyFail`: `message`.

From the server:

- `SSLResponse`, `GSSENCResponse` (the one-byte answers): `accepted`. `Authentication...`: `code`; with SASL
  `mechanisms`.
- `BackendKeyData`: `process`. `ParameterStatus`: `name`, `value`. `NegotiateProtocolVersion`: `minor`,
  `unknown_options`.
- `RowDescription`: `columns` [{`name`, `type`, `oid`, `table`, `attribute`, `size`, `modifier`, `format` ("text",
  "binary")}..].
- `DataRow`: `values` [cell..], `columns` [{`name`, `type`}..] or None when not known; one list is shared by all rows of an
  answer. No summary.
- `ParameterDescription`: `types`. `CommandComplete`: `tag`. `ReadyForQuery`: `status` ("idle", "in transaction", "failed
  transaction"). `ParseComplete`, `BindComplete`, `CloseComplete`, `NoData`, `EmptyQueryResponse`, `PortalSuspended`: none.
- `ErrorResponse`, `NoticeResponse`: `severity`, `code`, `message`, `detail`, `hint`... (`backend.ERROR_FIELDS`).
- `NotificationResponse`: `process`, `channel`, `payload`. `FunctionCallResponse`: `value`.
- `CopyInResponse`, `CopyOutResponse`, `CopyBothResponse`: `format`, `columns` [format..].

Both: `CopyData` has the data in `content`; one longer than `COPY_PART_BYTES` comes in parts with `offset` and `total`.

A cell is None (NULL), a str, {"binary": hex}, or, in a row that is cut, {"omitted": length}. Secrets are in no field.

A message longer than its limit (wire.py) or hit by a gap has `incomplete` and what could be read; one whose inside does not add
up has `incomplete` "malformed: why" and no fields, and the next one is read.
"""

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
