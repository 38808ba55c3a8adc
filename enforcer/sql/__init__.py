"""From a statement of SQL to what it does: effects, relations, functions, and whether that is all.

What lives here: everything about the text of statements. What must not: connections, and anything of the proxy.
"""
