"""A session in forms that other tools read: HAR, SQL, asciicast, pcapng, and a page of HTML.

What lives here: one module a form: records in, pieces of a file out, each a piece as soon as it can be. What must not: files,
options, bundles.
"""
