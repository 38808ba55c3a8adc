"""TLS in the middle: the authority of this host, leaves for what agents ask for, endpoints without sockets."""
