"""Two witnesses: what the enforcer decided, held against what the probes saw of the same connections.

What lives here: reading the decision log, matching, comparing. What must not: deciding, capture, what a session says.
"""
