"""HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112)."""

from capd.decoders.http1.decoder import Http1Decoder

__all__ = ["Http1Decoder"]
