"""Signing in to databases: what is said by whoever proves a password, and by whoever lets an agent in.

Nothing here has a socket, a clock or chance of its own: bytes in, bytes out.
"""
