"""The kernel side of capture: BPF C, its compiler and loader, the attach planner, the event layouts.

What lives here: all that knows the kernel. What must not: sessions, protocols, files on disk, anything else of capd.
"""
