"""The proxy: events in, commands out, and one file (shell.py) in which asyncio performs them."""
