"""The `capd` command: one module per verb, presentation only."""
