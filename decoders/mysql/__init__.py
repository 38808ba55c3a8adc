"""MySQL client/server protocol, version 10, as MySQL and MariaDB speak it."""

from capd.decoders.mysql.decoder import MysqlDecoder

__all__ = ["MysqlDecoder"]
