"""What real clients and a real server say to each other, decoded, against what the clients were told."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence

import pytest
import redis

from capd.decoders.detect import detect
from capd.decoders.message import Direction, Message, ProtocolError, Skipped
from capd.decoders.redis import RedisDecoder
from tests.decoders.feeding import REQUEST, Arrival, byte_by_byte, check_spans, feed, normal
from tests.decoders.relay import Relay, relay_to
from tests.servers.redis import PASSWORD, RedisServer, redis_server

WAIT_SECONDS = 120.0


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server with a password, without TLS."""
    with redis_server("--requirepass", PASSWORD) as running:
        yield running


def decoded(arrivals: Sequence[Arrival], *, unpaired: frozenset[str] = frozenset()) -> list[Message]:
    """All messages of a conversation, which must decode whole, the same byte by byte, and never show the password."""
    request, response = (
        b"".join(data for side, data in arrivals if side is of and isinstance(data, bytes)) for of in Direction
    )
    assert "redis" == detect(request, response, None, ended=True)
    seen = feed(RedisDecoder(), arrivals)
    check_spans(arrivals, seen)
    assert normal(seen) == normal(feed(RedisDecoder(), byte_by_byte(arrivals)))
    assert [] == [event for event in seen if isinstance(event, Skipped | ProtocolError)]
    messages = [event for event in seen if isinstance(event, Message)]
    assert [] == [message for message in messages if message.incomplete]
    assert [] == [message for message in messages if PASSWORD in repr(message)]
    assert [] == [message for message in messages if message.exchange is None and message.type not in unpaired]
    return messages


def pairs(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Commands and their answers."""
    asked = {message.exchange: message.summary for message in messages if message.type == "command"}
    return [(asked[message.exchange], message.summary) for message in messages if message.type in ("reply", "error")]


def holding(relay: Relay, word: bytes) -> list[Arrival]:
    """The only conversation in which something is said."""
    (arrivals,) = [said for said in relay.conversations if any(word in data for _, data in said if isinstance(data, bytes))]
    return arrivals


def client(relay: Relay, protocol: int) -> redis.Redis:
    """redis-py on one connection."""
    return redis.Redis(
        host="127.0.0.1",
        port=relay.port,
        password=PASSWORD,
        protocol=protocol,
        decode_responses=True,
        single_connection_client=True,
    )


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py(server: RedisServer, protocol: int) -> None:
    """Values, pipelines, transactions, scripts and errors are paired as the client paired them."""
    with relay_to(server.port) as relay:
        with client(relay, protocol) as agent:
            agent.flushall()
            agent.set("k", "é \r\n x")
            told = agent.get("k")
            agent.hset("h", mapping={"a": "1", "b": "2"})
            everything = agent.hgetall("h")
            with pytest.raises(redis.ResponseError):
                agent.lpush("k", "x")
            results = agent.pipeline(transaction=False).incr("n").incr("n").get("n").execute()
            transaction = agent.pipeline(transaction=True).incr("n").zadd("z", {"m": 1.5}).zscore("z", "m").execute()
            script = agent.eval("return {1, {ARGV[1], false}}", 1, "k", "v")
            agent.blpop(["missing"], timeout=0.01)
            agent.set("big", "x" * 300_000)
            assert 300_000 == len(agent.get("big"))
        conversations = [decoded(arrivals) for arrivals in relay.conversations if arrivals]
    messages = [message for messages in conversations for message in messages]
    said = dict(pair for messages in conversations for pair in pairs(messages))
    assert "é \r\n x" == told == said["GET k"]
    assert {"a": "1", "b": "2"} == everything
    assert {"[a, 1, b, 2]", "{[a, 1], [b, 2]}"} & {said["HGETALL h"]}
    assert said["LPUSH k x"].startswith("WRONGTYPE")
    assert [1, 2, "2"] == results
    assert "2" == said["GET n"]
    assert 3 == len(transaction)
    (exec_,) = [message for message in messages if message.fields.get("commands")]
    assert [3, 1] == [len(list(exec_.fields["commands"])), list(exec_.fields["value"])[1]]  # type: ignore[arg-type]
    assert [1, ["v", None]] == script
    assert "[1, [v, (nil)]]" == said['EVAL "return {1, {ARGV[1], false}}" 1 k v']
    assert "(nil)" == next(answer for command, answer in said.items() if command.startswith("BLPOP"))


@pytest.mark.parametrize("protocol", [2, 3])
def test_channels(server: RedisServer, protocol: int) -> None:
    """Messages of channels are told from answers, and confirmations belong to what asked for them."""
    with relay_to(server.port) as relay:
        with redis.Redis(port=server.port, password=PASSWORD) as other, client(relay, protocol) as agent:
            subscription = agent.pubsub()
            subscription.subscribe("a", "b")
            subscription.psubscribe("p*")
            kinds = [_next(subscription) for _ in range(3)]
            for channel in ("a", "b", "px"):
                other.publish(channel, f"to {channel}")
            kinds += [_next(subscription) for _ in range(3)]
            subscription.unsubscribe()
            kinds += [_next(subscription) for _ in range(2)]
            subscription.punsubscribe("p*")
            kinds.append(_next(subscription))
            subscription.close()
        arrivals = holding(relay, b"SUBSCRIBE")
    messages = decoded(arrivals, unpaired=frozenset({"push"}))
    pushed = [message for message in messages if message.type == "push"]
    assert [
        "subscribe",
        "subscribe",
        "psubscribe",
        "message",
        "message",
        "pmessage",
        "unsubscribe",
        "unsubscribe",
        "punsubscribe",
    ] == kinds
    assert kinds == [next(iter(message.fields["value"])) for message in pushed]  # type: ignore[arg-type]
    asked = {message.exchange: message.fields["command"] for message in messages if message.type == "command"}
    confirmed = [asked[message.exchange] for message in pushed if message.exchange is not None]
    assert ["SUBSCRIBE", "SUBSCRIBE", "PSUBSCRIBE", "UNSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE"] == confirmed


def _next(subscription: redis.client.PubSub) -> str:
    message = subscription.get_message(timeout=WAIT_SECONDS)
    assert message is not None
    return str(message["type"])


def test_redis_cli(server: RedisServer) -> None:
    """What redis-cli types and prints is what is decoded."""
    script = (
        "SET k 'a b'\nGET k\nMULTI\nINCR n\nEXEC\nLRANGE missing 0 -1\nBAD\nCONFIG SET requirepass "
        + PASSWORD
        + "\nCOMMAND COUNT\n"
    )
    with relay_to(server.port) as relay:
        command = ["redis-cli", "-h", "127.0.0.1", "-p", str(relay.port), "--no-auth-warning", "-a", PASSWORD]
        printed = subprocess.run(command, input=script, capture_output=True, text=True, check=True, timeout=WAIT_SECONDS).stdout
        messages = decoded(holding(relay, b"COMMAND"))
    said = dict(pairs(messages))
    assert "AUTH (hidden)" in said
    assert "CONFIG SET requirepass (hidden)" in said
    assert said["GET k"] == "a b"
    assert said["COMMAND COUNT"] == printed.split()[-1]
    assert said["BAD"].startswith("ERR unknown command")


def test_redis_benchmark(server: RedisServer) -> None:
    """A deep pipeline is paired to its last command."""
    with relay_to(server.port) as relay:
        options = [
            "-h",
            "127.0.0.1",
            "-p",
            str(relay.port),
            "-a",
            PASSWORD,
            "-n",
            "500",
            "-P",
            "100",
            "-c",
            "1",
            "-t",
            "get,lrange_100",
            "-q",
        ]
        subprocess.run(["redis-benchmark", *options], check=True, capture_output=True, timeout=WAIT_SECONDS)
        conversations = [arrivals for arrivals in relay.conversations if len(arrivals) > 2]
    counted = 0
    for arrivals in conversations:
        messages = decoded(arrivals)
        asked = [message.exchange for message in messages if message.type == "command"]
        answered = [message.exchange for message in messages if message.type == "reply"]
        assert asked == answered
        counted += len(asked)
    assert counted >= 1000


def test_monitor_and_silence(server: RedisServer) -> None:
    """Lines of MONITOR are told from answers; where answers are left out, none is paired with what came before."""
    with relay_to(server.port) as relay:
        with (
            socket.create_connection(("127.0.0.1", relay.port), timeout=WAIT_SECONDS) as raw,
            raw.makefile("rb") as reader,
            redis.Redis(port=server.port, password=PASSWORD) as other,
        ):
            raw.sendall(b"AUTH " + PASSWORD.encode() + b"\r\nCLIENT REPLY OFF\r\nSET a 1\r\nCLIENT REPLY ON\r\nMONITOR\r\n")
            assert [b"+OK\r\n"] * 3 == [reader.readline() for _ in range(3)]
            speaker = threading.Thread(target=other.get, args=("k",))
            speaker.start()
            while b'"GET" "k"' not in reader.readline():
                pass
            speaker.join()
            raw.sendall(b"PING\r\nRESET\r\nQUIT\r\n")
            while reader.readline():
                pass
        messages = decoded(holding(relay, b"MONITOR"), unpaired=frozenset({"monitor"}))
    said = pairs(messages)
    assert ("CLIENT REPLY ON", "OK") in said
    assert "SET a 1" not in dict(said)
    assert [message for message in messages if message.type == "monitor"]
    assert all(message.direction is REQUEST or message.type in ("reply", "monitor", "error") for message in messages)
