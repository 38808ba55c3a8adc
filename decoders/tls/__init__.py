"""What can be told of TLS without keys: records and the ClientHello."""

from capd.decoders.tls.hello import ClientHello, client_hello, hello_bytes, hello_wants
from capd.decoders.tls.records import ContentType, Record, RecordWalk, is_client_hello

__all__ = [
    "ClientHello",
    "ContentType",
    "Record",
    "RecordWalk",
    "client_hello",
    "hello_bytes",
    "hello_wants",
    "is_client_hello",
]
