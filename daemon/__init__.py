"""The roles of capd and how they are run: configuration, selection, the control socket, capture, recording, health.

What lives here: processes and what they share. What must not: BPF, byte formats, protocols, terminal output.
"""
