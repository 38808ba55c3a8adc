"""The text of a message.

What lives here: from bytes to characters, or why not. What must not: words.
"""

from __future__ import annotations

from typing import Final

from capd.enforcer.sql.lexeme import MESSAGE_BYTES_MAX, Reading

NOT_UTF_8: Final = "a name has characters beyond ASCII in an encoding other than UTF-8: which ones capd does not know"


def message_text(message: bytes, reading: Reading) -> tuple[str, tuple[str, ...]]:
    """Give a message's text, and why the server perhaps reads another."""
    if len(message) > MESSAGE_BYTES_MAX:
        return "", (f"the message has more than {MESSAGE_BYTES_MAX} bytes",)
    if b"\0" in message:
        return "", ("there is a zero byte in the message",)
    if reading.encoding is None:
        return "", ("the session's encoding is not known, or is one in which a quote may be a part of a character",)
    if reading.plain_backslash is None or reading.double_quotes_name is None:
        return "", ("it is not known how the session reads quotes and backslashes",)
    try:
        return message.decode(reading.encoding), ()
    except UnicodeDecodeError:
        return "", (f"the message is not {reading.encoding}",)
