"""WebSocket (RFC 6455): behind a judged handshake, each frame read and written anew."""

from capd.enforcer.proxy.websocket.layer import WebsocketLayer

__all__ = ["WebsocketLayer"]
