"""WebSocket (RFC 6455) with permessage-deflate (RFC 7692)."""

from capd.decoders.websocket.decoder import WebsocketDecoder

__all__ = ["WebsocketDecoder"]
