"""capd records what the agents on a host say and hear. The packages in here are links to the folders at the root."""
