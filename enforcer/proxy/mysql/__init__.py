"""MySQL and MariaDB on their own connection: each command is judged before the server gets it.

The server speaks first, so it is dialled when a session may be opened at all; it hears nothing before the one that the client
wants is allowed.
"""
