"""Approvals: what a rule wants a person to see first waits here, durably, until somebody decides.

The core (action_hash, moment, state, request, eligibility, entry, ledger) has no clock, no randomness and no files; store.py
and desk.py are its shell. Who is asking and who decides is found out elsewhere (daemon/).
"""
