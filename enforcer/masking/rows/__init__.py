"""Masking of what databases answer: by where a column comes from, as the server itself says, and never by its name alone.

Pure: what to ask a server, what its answers mean, whether a statement may be sent, and its rows with values replaced.
"""
