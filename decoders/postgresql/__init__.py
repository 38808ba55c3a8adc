"""PostgreSQL frontend/backend protocol, version 3."""

from capd.decoders.postgresql.decoder import PostgresqlDecoder

__all__ = ["PostgresqlDecoder"]
