"""The policy: what agents may do. Actions in, decisions out; docs/policy.md is the language.

Nothing here listens, dials, or has a clock. Files are read in one module (directory.py).
"""
