"""What the recorder does before anything is stored: recording levels, masking, what it says of both.

The rules themselves, and finding what they cover, are in enforcer/masking, for the enforcer too.
"""
