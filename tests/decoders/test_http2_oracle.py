"""Our HTTP/2 against another's: what two ends of the `h2` library say to each other is decoded as they meant it.

What lives here: random conversations and the comparison. What must not: expectations of our own.
"""

from __future__ import annotations

import random
from collections import defaultdict

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from hypothesis import given, settings
from hypothesis import strategies as st

from capd.decoders.http2 import Http2Decoder
from capd.decoders.message import Message, ProtocolError, Skipped
from tests.decoders.feeding import REQUEST, RESPONSE, Arrival, Seen, check_spans, feed, normal, split_at

NAMES = ["x-a", "x-b", "cookie", "authorization", "accept", "user-agent"]
Told = dict[int, list[object]]


class Ends:
    """A client and a server, and what each of them understood."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.arrivals: list[Arrival] = []
        self.told: tuple[Told, Told] = (defaultdict(list), defaultdict(list))
        self.ends = [
            H2Connection(H2Configuration(client, header_encoding="latin-1", normalize_inbound_headers=False))
            for client in (True, False)
        ]
        self.unchanged = list(self.ends)
        for end in self.ends:
            end.initiate_connection()
        self.open: list[int] = []
        self.answered: set[int] = set()
        self.pump()

    def pump(self) -> None:
        """Bring to the other end what waits, in random pieces."""
        for _ in range(3):
            for direction in (REQUEST, RESPONSE):
                said = self.ends[direction].data_to_send()
                while said:
                    size = self.chance.choice([len(said), self.chance.randint(1, len(said))])
                    self.arrivals.append((direction, said[:size]))
                    for event in self.ends[1 - direction].receive_data(said[:size]):
                        self.note(event, direction)
                    said = said[size:]

    def note(self, event: object, direction: int) -> None:
        """Remember what an end was told."""
        if isinstance(event, RequestReceived | ResponseReceived | TrailersReceived):
            self.told[direction][event.stream_id].append([list(pair) for pair in event.headers or ()])
        elif isinstance(event, DataReceived):
            said = self.told[direction][event.stream_id]
            if said and isinstance(said[-1], bytes):
                said[-1] += event.data
            else:
                said.append(event.data)
            if event.flow_controlled_length:
                self.ends[1 - direction].acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.told[direction][event.stream_id].append("end")
        elif isinstance(event, StreamReset):
            self.told[direction][event.stream_id].append(event.error_code)

    def step(self) -> None:
        """Do something: open a stream, send a part, end, answer, reset, change the table."""
        chance = self.chance
        client, server = self.ends
        kind = chance.random()
        if kind < 0.3 or not self.open:
            number = client.get_next_available_stream_id()
            client.send_headers(number, self.head([(":method", "POST"), (":scheme", "https"), (":path", self.word())]))
            self.open.append(number)
        elif kind < 0.5:
            number = chance.choice(self.open)
            if number not in self.answered:
                server.send_headers(number, self.head([(":status", "200")]))
                self.answered.add(number)
            else:
                server.send_data(number, chance.randbytes(chance.randint(0, 300)), pad_length=chance.choice([None, 0, 9]))
        elif kind < 0.75:
            client.send_data(chance.choice(self.open), chance.randbytes(chance.randint(0, 300)))
        elif kind < 0.9:
            number = self.open.pop(chance.randrange(len(self.open)))
            client.end_stream(number)
            self.pump()
            if number not in self.answered:
                server.send_headers(number, self.head([(":status", "404")]), end_stream=chance.random() < 0.5)
            else:
                server.send_headers(number, self.head([]), end_stream=True)
        elif kind < 0.95:
            self.ends[chance.randrange(2)].reset_stream(self.open.pop(chance.randrange(len(self.open))), 8)
        else:
            # Each end does it once: h2 does not follow its own settings when several are on their way.
            for end in self.unchanged[:1]:
                end.update_settings({1: chance.choice([0, 100, 4096, 20_000])})
            del self.unchanged[:1]
        self.pump()

    def head(self, pseudo: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Give a head with random fields."""
        fields = [(self.chance.choice(NAMES), self.word()) for _ in range(self.chance.randint(1, 6))]
        return [*pseudo, *([(":authority", "h")] if len(pseudo) > 1 else []), *fields]

    def word(self) -> str:
        """Give a value; some come again."""
        if self.chance.random() < 0.5:
            return "/again"
        return "/" + "".join(self.chance.choices("abc0/=~ \xe9", k=self.chance.randint(0, 200))).strip() + "x"


def understood(seen: list[Seen]) -> tuple[Told, Told]:
    """Give what our decoder understood, in the form of the ends."""
    told: tuple[Told, Told] = (defaultdict(list), defaultdict(list))
    for event in seen:
        assert isinstance(event, Message)
        if event.exchange is None or event.type in ("WINDOW_UPDATE", "PRIORITY"):
            continue
        said = told[event.direction][event.exchange]
        if event.type in ("request", "response"):
            said.append(event.fields["headers"])
        elif event.type == "body":
            if said and isinstance(said[-1], bytes):
                said[-1] += event.content
            else:
                said.append(event.content)
        elif event.type == "end" and not (event.incomplete or "").startswith("reset"):
            said += [event.fields["trailers"]] if event.fields["trailers"] else []
            said.append("end")
        elif event.type == "RST_STREAM":
            said.append(event.fields["code"])
    return told


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 40))
def test_two_ends_of_h2(seed: int, steps: int) -> None:
    """Heads, bodies, trailers, ends and resets of every stream are those that the other end was told, however cut."""
    ends = Ends(random.Random(seed))
    for _ in range(steps):
        ends.step()
    seen = feed(Http2Decoder(), ends.arrivals)
    assert [] == [event for event in seen if isinstance(event, Skipped | ProtocolError)]
    check_spans(ends.arrivals, seen, ended=False)
    found = understood(seen)
    for direction in (REQUEST, RESPONSE):
        for number, said in ends.told[direction].items():
            mine = [part for part in found[direction][number] if part != b""]
            assert [part for part in said if part != b""] == mine[: len(said)] or said[-1:] == [8] or mine[-1:] == [8], number
    assert normal(seen) == normal(feed(Http2Decoder(), split_at(ends.arrivals, range(0, 20_000, 7))))
