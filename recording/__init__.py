"""Bytes on disk: the record model, the journal, segments, their verification, the index and the archive that reads them.

What lives here: formats and durability. What must not: the kernel, protocols, processes, anything else of capd.
"""
