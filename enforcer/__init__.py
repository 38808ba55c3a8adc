"""The local proxy that judges what agents do, and what forces their traffic before it."""
