"""HTTP/1.1 (RFC 9112): each request read, judged, and written anew."""

from capd.enforcer.proxy.http1.layer import Http1Layer

__all__ = ["Http1Layer"]
