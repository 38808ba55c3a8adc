"""HTTP/2 (RFC 9113) with HPACK (RFC 7541), and gRPC's messages in it."""

from capd.decoders.http2.decoder import Http2Decoder

__all__ = ["Http2Decoder"]
