"""Credentials: secrets that live with capd, bound to whom and where they may be used, put into requests by the proxy.

Nothing here writes a value anywhere: not into logs, errors or what `repr` gives.
"""
