"""Evidence: whether a recording is whole, said from its bytes and public keys alone, wherever it lies.

What lives here: reading from a directory or a bucket (shelf.py), one segment (seals.py), a host's segments, heads and keys
together (hosts.py), what was seen before (pins.py). What must not: content of records, presentation, repair.
"""
