"""Errors of MySQL and MariaDB while hidden columns are about: what of them may repeat a value is left out.

What lives here: the ERR packet (MySQL Internals, "ERR_Packet"). What must not: when.

"Duplicate entry '...' for key", "Incorrect integer value: '...'" and many more repeat values. Number and SQLSTATE stay.
"""

from __future__ import annotations

import struct
from typing import Final

from capd.enforcer.masking.rows.field import BrokenMessageError

HIDDEN: Final = b"hidden by capd: it may repeat values of hidden columns"
_ERROR: Final = 0xFF
_HEAD: Final = struct.Struct("<BH")
_MARK: Final = b"#"
_STATE_BYTES: Final = 6
_NAMED: Final = (1044, 1045, 1046, 1049, 1051, 1052, 1054, 1060, 1064, 1066, 1109, 1142, 1143, 1146, 1148, 1205, 1213, 1222)
_STOPPED: Final = (1317, 1969, 3024)
_NAMED_CODES: Final = frozenset({*_NAMED, *_STOPPED})
"""Errors about names that the statement says, about rights, locks and time: these have no values."""


def hidden_error(body: bytes) -> bytes:
    """Give an ERR packet's content without what may be values.

    Raises:
        BrokenMessageError: it is none.
    """
    if len(body) < _HEAD.size or body[0] != _ERROR:
        raise BrokenMessageError
    _, code = _HEAD.unpack_from(body)
    if code in _NAMED_CODES:
        return body
    at = _HEAD.size
    state = body[at : at + _STATE_BYTES] if body[at : at + 1] == _MARK else b""
    return body[:at] + state + HIDDEN
