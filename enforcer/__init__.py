"""The local proxy that judges what agents do. Nothing is enforced yet: capd records."""
