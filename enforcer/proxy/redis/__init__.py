"""Redis in the enforcer: RESP2, RESP3 and inline commands, judged one by one."""
