"""The rules that come with capd and are in every policy.

What lives here: their text. What must not: reading it (document.py).

The metadata services of clouds give credentials of the machine to whoever asks. No rule of an operator can allow them, and none
can have them approved: deny wins, and these cannot be taken out.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "capd:"
"""Begins the ids of these rules; no id of an operator can begin so."""
FILE: Final = "(comes with capd)"

TEXT: Final = """\
rules:
  - id: cloud-metadata-address
    description: metadata services by address; also through NAT64 and 6to4
    match:
      addresses:
        - 169.254.169.254       # AWS, Azure, Google, DigitalOcean, Oracle, OpenStack
        - 169.254.170.2         # AWS task roles
        - 169.254.170.23        # AWS pod identity
        - fd00:ec2::254         # AWS
        - fd00:ec2::23          # AWS pod identity
        - 100.100.100.200       # Alibaba
        - 168.63.129.16         # Azure, the host's agent
        - 192.0.0.192           # Oracle
        - 64:ff9b::a9fe:0/112   # 169.254.0.0/16 through NAT64
        - 2002:a9fe::/32        # 169.254.0.0/16 through 6to4
    then: deny
    reason: the credentials of this machine are not for agents
  - id: cloud-metadata-name
    description: metadata services by name
    match:
      hosts:
        - metadata.google.internal
        - metadata.goog
        - instance-data
        - instance-data.ec2.internal
        - 169.254.169.254
        - 169.254.170.2
        - 169.254.170.23
        - fd00:ec2::254
        - fd00:ec2::23
        - 100.100.100.200
        - 168.63.129.16
        - 192.0.0.192
    then: deny
    reason: the credentials of this machine are not for agents
"""
