"""Guard rails: how much may be said and answered."""
