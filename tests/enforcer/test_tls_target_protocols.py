"""What is remembered of targets without HTTP/2."""

from __future__ import annotations

from capd.enforcer.tls.target_protocols import KNOWN_SECONDS, TARGETS_MAX, TargetProtocols


def test_targets_are_remembered_for_a_while() -> None:
    """A target without HTTP/2 is one for an hour, or until it has it; others of its name are others."""
    now = [0.0]
    known = TargetProtocols(lambda: now[0])
    key, other = ("api.test", "192.0.2.1", 443), ("api.test", "192.0.2.2", 443)
    assert known.speaks_http2(key)
    known.learn(key, http2=False)
    assert (False, True) == (known.speaks_http2(key), known.speaks_http2(other))
    now[0] = KNOWN_SECONDS
    assert known.speaks_http2(key)
    known.learn(key, http2=False)
    known.learn(key, http2=True)
    assert known.speaks_http2(key)


def test_the_memory_is_bounded() -> None:
    """Of more targets than are kept the oldest are forgotten."""
    known = TargetProtocols(lambda: 0.0)
    for number in range(TARGETS_MAX + 1):
        known.learn((str(number), "192.0.2.1", 443), http2=False)
    assert (True, False) == (known.speaks_http2(("0", "192.0.2.1", 443)), known.speaks_http2(("1", "192.0.2.1", 443)))
