"""Understanding Redis: from a command to its effects and its keys."""
