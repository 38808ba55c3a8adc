"""Redis: the RESP2 and RESP3 protocols, and inline commands."""

from capd.decoders.redis.decoder import RedisDecoder

__all__ = ["RedisDecoder"]
