"""Names for runs: a resolver that looks up only what some rule could allow, and remembers which name gave which address.

`bindings` and `core` are values and functions; `upstream` reads resolv.conf; `service` is the only file that waits for sockets.
"""
