"""Approvals beyond this host: what is told to chat tools, and the signed links by which persons answer.

Values to values: no sockets, no files, no clocks.
"""
