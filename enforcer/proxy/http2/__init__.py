"""HTTP/2 (RFC 9113): each stream read, judged, and written anew."""

from capd.enforcer.proxy.http2.layer import Http2Layer

__all__ = ["Http2Layer"]
