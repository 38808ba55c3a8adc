"""The pure core of the recorder: journal blocks in, records and index rows out.

No file, clock, socket or random number is touched here. `assembler.Assembler` is the only way in; each other module holds one
noun.
"""
