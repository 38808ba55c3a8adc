"""Masking: finding what must not be recorded, or must not reach an agent, and putting a filler of the same length in its place.

Pure: bytes and decoded messages in, places out. The recorder uses it before anything is stored.
"""
