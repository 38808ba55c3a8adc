"""MySQL and MariaDB: the decoder, and what its messages carry.

What lives here: the two directions put together. What must not: their messages (client.py, server.py), framing (side.py).

`type` is the protocol documentation's name of a message, `exchange` its command (answers.py). `fields`, from the client:

- `SSLRequest`: none. `HandshakeResponse`, `COM_CHANGE_USER`: `user`, `database`, `plugin`, `attributes` {name: value}, `proof`
  [start, end] (where in the message the proof of the password stands); the first has `capabilities` [name..].
- `AuthResponse`, `AuthSwitchResponse`: none.
- `COM_QUERY`: `sql`, `attributes` [{`name`, `value`}..]. `COM_STMT_PREPARE`: `sql`. The summary is the SQL text.
- `COM_STMT_EXECUTE`: `statement` (its number), `cursor`, `sql` if it was prepared seen, `parameters` [cell, or {"sent_before":
  true}..], `parameter_types` [name..], `parameter_names`.
- `COM_STMT_BULK_EXECUTE`: `rows` [[cell, or {"default": true}, or {"ignored": true}..]..], `count`, else as before.
- `COM_STMT_SEND_LONG_DATA`: `statement`, `parameter`; the data in `content`. `COM_STMT_FETCH`: `statement`, `rows_max`.
- `COM_STMT_CLOSE`, `COM_STMT_RESET`: `statement`. `COM_INIT_DB`, `COM_CREATE_DB`, `COM_DROP_DB`: `database`.
- `COM_FIELD_LIST`: `table`, `wildcard`. `COM_SET_OPTION`: `option`. `COM_PROCESS_KILL`: `thread`.
- `LocalInfileData`: `last`; the data in `content`. Other `COM_...`: none. An unknown command is `command 0x..`.

From the server:

- `Handshake`: `protocol`, `version`, `thread`, `plugin`, `capabilities`, `status`, `proof` (where the scramble stands).
- `AuthSwitchRequest`, `AuthNextFactor`: `plugin`. `AuthMoreData`: none; the summary says what it means, if that is known.
- `OK`: `affected_rows`, `last_insert_id`, `warnings`, `status` [word..], `info`, and of the session what changed: `variables`
  [{`name`, `value`}..], `schema`, `transaction`, `characteristics`, `gtids`. `EOF`: `warnings`, `status`.
- `ERR`: `code`, `state`, `message`. `Progress` (MariaDB): `stage`, `stages`, `thousandths`, `info`.
- `ColumnDefinitions`: `columns` [{`name`, `type`, `code`, `schema`, `table`, `column`, `format` ("text", "binary")}..];
  `schema`, `table` and `column` are where the values come from. `ParameterDefinitions`: `parameters`, likewise.
- `ColumnCount`: `count` (definitions are not sent again). `ColumnDefinition`: `column` (of COM_FIELD_LIST).
- `Row`: `values` [cell..], `columns` or None when not known; one list is shared by all rows of an answer. No summary.
- `COM_STMT_PREPARE_OK`: `statement`, `columns_count`, `parameters_count`. `Statistics`: `text`. `LocalInfileRequest`: `file`.
- `BinlogEvent`: replication, which is told and not decoded. `Packet`: what nothing that was seen asked for.

A cell is None (NULL), a str, {"binary": hex}, or, in a row that is cut, {"omitted": length}. Secrets are in no field.

A message longer than its limit (wire.py) or hit by a gap has `incomplete` and what could be read; one whose inside does not add
up has `incomplete` "malformed: why", and the next one is read. Where the compressed protocol begins decoding ends.
"""

from __future__ import annotations

from capd.decoders.conversation import Conversation
from capd.decoders.mysql.answers import Answers
from capd.decoders.mysql.client import Client
from capd.decoders.mysql.server import Server


class MysqlDecoder(Conversation):
    """Decodes one connection to MySQL or MariaDB. Use `receive` and `next_event`."""

    def __init__(self) -> None:
        answers = Answers()
        super().__init__(Client(answers), Server(answers))
