"""What puts an agent's traffic before the proxy and keeps all else from leaving: the nftables table of an instance.

`plan` makes a `table` of facts; `messages` turns it into netlink bytes and back; `ruleset` brings it into the kernel. Only the
last one touches the kernel. The second layer, which knows nothing of this one, is made of BPF programs (probes/barrier.py).
"""
