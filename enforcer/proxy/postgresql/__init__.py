"""PostgreSQL (protocol 3.0 and 3.2) between a client and its server: every statement judged before the server hears of it.

Source: PostgreSQL documentation, chapter 55 "Frontend/Backend Protocol".
"""
