"""Sans-IO protocol decoders, one folder per protocol: bytes and gaps in, messages out.

What lives here: the knowledge of one wire protocol each. What must not: sockets, files, clocks, logging, anything of capd.
"""
