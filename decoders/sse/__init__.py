"""Server-sent events (WHATWG HTML, section 9.2)."""

from capd.decoders.sse.events import EventStream, ServerSentEvent

__all__ = ["EventStream", "ServerSentEvent"]
