"""The table in the kernel: put there as one transaction, read back, compared, owned as long as this process lives.

What lives here: the netlink socket and what goes over it. What must not: which rules (plan.py), which bytes (messages.py).

The socket is the table's owner (Linux 5.12): while it is open no other process changes the table, `nft flush ruleset` by root
passes over it. The table persists (Linux 6.9): when the socket is closed, by whatever end of the process, it stays as it is,
and the next daemon takes it over. On a kernel without either it stays too, but root can take it away; `owned` says which it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import zip_longest
from typing import ClassVar, Final, TypeVar

from capd.enforcer.forcing import messages
from capd.enforcer.forcing.attributes import by_kind
from capd.enforcer.forcing.messages import Answer, Message
from capd.enforcer.forcing.table import Chain, KeyType, Set, Table
from capd.recording.errors import CapdError, ExitStatus

ANSWER_SECONDS_MAX: Final = 10.0
"""The kernel answers within the call; a transaction may wait for another one, and for a grace period."""
RECEIVE_BYTES: Final = 1 << 16
"""One datagram of a dump is at most 32 KiB (NLMSG_GOODSIZE times four)."""
RECEIVE_BUFFER_BYTES: Final = 4 << 20
"""For thousands of acknowledgements of one transaction, each of which occupies a buffer of some 800 bytes."""
DUMP_TRIES: Final = 5
"""A dump during which another process changed a table is asked for again."""
NETLINK_NETFILTER: Final = 12
SOL_NETLINK: Final = 270
NLMSG_ERROR, NLMSG_DONE = 2, 3
DUMP_INTERRUPTED: Final = 0x10
EXTENDED_ACK: Final = 11
SO_RCVBUFFORCE: Final = 33
_CODE: Final = struct.Struct("=i")
ACK_CAPPED, ACK_EXTENDED = 0x100, 0x200
_Part = TypeVar("_Part", Set, Chain)


class ForcingError(CapdError):
    """The kernel did not take the rules that force agents' traffic: nothing of them is in place, or not as planned."""

    exit_status: ClassVar[int] = ExitStatus.HOST
    hint: ClassVar[str] = (
        "the kernel needs nf_tables with `socket`, `redir`, `reject` and conntrack (CONFIG_NFT_SOCKET, _REDIR, _REJECT, _CT; "
        "modules nft_socket, nft_redir); another program may hold a table of this name"
    )


class Ruleset:
    """The table of one instance in the network namespace in which this object was made. One thread calls it."""

    def __init__(self, kept: socket.socket | None = None) -> None:
        """Open the socket that will own the table, or go on with one that does.

        Args:
            kept: a netfilter socket of an earlier process, which is closed with this object.

        Raises:
            ForcingError: the kernel has no nf_tables, or this process may not use it.
        """
        self._sequence = 0
        self.owned = False
        """Whether nobody else can change the table while this process lives."""
        with _translated("open a netlink socket"):
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
            self.socket = kept or socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
            self.socket.setsockopt(SOL_NETLINK, EXTENDED_ACK, 1)
            with contextlib.suppress(PermissionError):
                self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
            if kept is None:
                self.socket.bind((0, 0))
            else:
                _drain(kept)
            self.socket.settimeout(ANSWER_SECONDS_MAX)

    def close(self) -> None:
        """Give up the table, which stays."""
        self.socket.close()

    def apply(self, table: Table) -> None:
        """Make the table be there exactly so, in one moment, and read it back.

        Raises:
            ForcingError: the kernel refused a part, so that nothing was changed, or tells another table than was given.
        """
        exists = self.flags(table.name) is not None
        owner = messages.TABLE_OWNER | messages.TABLE_PERSIST
        try:
            self._commit(messages.replace(table, flags=owner, exists=exists))
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                raise ForcingError(f"cannot put the table {table.name} into the kernel: {_words(error)}") from error
            with _translated(f"put the table {table.name} into the kernel"):
                self._commit(messages.replace(table, flags=0, exists=exists))
        problem = self.difference(table)
        if problem is not None:
            raise ForcingError(f"the kernel tells another table {table.name} than it was given: {problem}")

    def change(self, before: Table, after: Table) -> None:
        """Make the one table, which stands, the other; where only what is selected differs, counters go on.

        Raises:
            ForcingError: as `apply`.
        """
        same_sets = [(one.name, one.key) for one in before.sets] == [(one.name, one.key) for one in after.sets]
        if same_sets and replace(before, sets=after.sets) == after:
            self.refill(after, [new.name for old, new in zip(before.sets, after.sets, strict=True) if old != new])
        else:
            self.apply(after)

    def refill(self, table: Table, names: Iterable[str]) -> None:
        """Make these sets hold what the table says, in one moment; counters go on.

        Raises:
            ForcingError: the kernel refused.
        """
        with _translated(f"change what the table {table.name} selects"):
            self._commit(messages.refill(table, names))

    def remove(self, name: str) -> bool:
        """Take the table away, if it is there and no living process owns it. Gives whether it was there.

        Raises:
            ForcingError: another process owns it, or the kernel refused.
        """
        if self.flags(name) is None:
            return False
        with _translated(f"remove the table {name}"):
            self._commit(messages.remove(name))
        return True

    def difference(self, table: Table) -> str | None:
        """Compare the kernel's table with what it should be.

        Returns:
            What is different, in words; None if nothing is.

        Raises:
            ForcingError: the kernel does not answer.
        """
        with _translated(f"read the table {table.name}"):
            flags = self.flags(table.name)
            if flags is None:
                return "it is gone"
            self.owned = bool(flags & messages.TABLE_OWNER)
            found = self._read(table)
        if found.counters != table.counters:
            return "its counters differ"
        return _first_other("set", found.sets, table.sets) or _first_other("chain", found.chains, table.chains)

    def counters(self, name: str) -> dict[str, int]:
        """Give how many packets each counter of the table has counted since it was made.

        Raises:
            ForcingError: the kernel does not answer.
        """
        with _translated(f"read the counters of {name}"):
            return messages.read_counters(self._dump(messages.ask_all(messages.GET_OBJECT, name)), name)

    def flags(self, name: str) -> int | None:
        """Give the flags of a table, None if there is none of that name.

        Raises:
            ForcingError: the kernel does not answer.
        """
        try:
            answers = self._ask(messages.ask_table(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ForcingError(f"cannot read the table {name}: {_words(error)}") from error
        return next((messages.read_table_flags(answer) for answer in answers if answer.kind == messages.NEW_TABLE), None)

    def _read(self, wanted: Table) -> Table:
        """Give the kernel's table; what has no order there in the order of the one that is wanted."""
        name = wanted.name
        counters = self.counters(name)
        kinds = messages.read_sets(self._dump(messages.ask_all(messages.GET_SET, name)), name)
        sets = {
            found: Set(name=found, key=KeyType(kind), elements=self._elements(name, found))
            for found, kind in kinds.items()
            if kind in set(KeyType)
        }
        written = self._dump(messages.ask_all(messages.GET_CHAIN, name)), self._dump(messages.ask_all(messages.GET_RULE, name))
        chains = {chain.name: chain for chain in messages.read_chains(*written, name)}
        return Table(
            name=name,
            counters=_as(tuple(counters), wanted.counters),
            sets=_in_order(sets, [found.name for found in wanted.sets]),
            chains=_in_order(chains, [chain.name for chain in wanted.chains]),
        )

    def _elements(self, table: str, name: str) -> frozenset[bytes]:
        return messages.read_elements(self._dump(messages.ask_elements(table, name)))

    def _commit(self, batch: list[Message]) -> None:
        """Send a transaction and wait for what the kernel says to each message of it."""
        first = self._sequence + 1
        self._sequence += len(batch)
        waiting = {number for number, message in enumerate(batch, first) if message.flags & messages.ACKNOWLEDGE}
        self._send(b"".join(message.encode(number) for number, message in enumerate(batch, first)))
        while waiting:
            for kind, _flags, sequence, body in self._receive():
                if kind == NLMSG_ERROR and first <= sequence <= self._sequence:
                    _raise_if_refused(body, _flags)
                    waiting.discard(sequence)

    def _ask(self, question: Message) -> list[Answer]:
        """Ask for one thing."""
        self._sequence += 1
        self._send(question.encode(self._sequence))
        found: list[Answer] = []
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_ERROR:
                    _raise_if_refused(body, flags)
                    return found
                found.append(Answer(kind=kind & 0xFF, attributes=by_kind(body[4:])))

    def _dump(self, question: Message) -> list[Answer]:
        """Ask for many things. A dump that a change interrupted is asked for again.

        Raises:
            OSError: the kernel refused, or other processes change tables without pause.
        """
        for _try in range(DUMP_TRIES):
            found = self._dump_once(question)
            if found is not None:
                return found
        raise OSError(errno.EAGAIN, "other programs change their tables without pause")

    def _dump_once(self, question: Message) -> list[Answer] | None:
        self._sequence += 1
        self._send(question.encode(self._sequence))
        found: list[Answer] = []
        whole = True
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                whole = whole and not flags & DUMP_INTERRUPTED
                if kind == NLMSG_ERROR:
                    _raise_if_refused(body, flags)
                if kind == NLMSG_DONE:
                    return found if whole else None
                found.append(Answer(kind=kind & 0xFF, attributes=by_kind(body[4:])))

    def _send(self, data: bytes) -> None:
        self.socket.sendto(data, (0, 0))

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Give the messages of one datagram: kind, flags, sequence, body."""
        data = self.socket.recv(RECEIVE_BYTES)
        position = 0
        while position + messages.HEADER.size <= len(data):
            length, kind, flags, sequence, _port = messages.HEADER.unpack_from(data, position)
            if length < messages.HEADER.size:
                return
            yield kind, flags, sequence, data[position + messages.HEADER.size : position + length]
            position += length + -length % 4


def _drain(kept: socket.socket) -> None:
    """Drop what the kernel still had to say to the process before: its answers must not be taken for ours."""
    kept.setblocking(False)
    while True:
        try:
            kept.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise


def _raise_if_refused(body: bytes, flags: int) -> None:
    """Raise what an acknowledgement says, with the kernel's own words where it has some (NLMSGERR_ATTR_MSG)."""
    code = -_CODE.unpack_from(body)[0]
    if code == 0:
        return
    words = ""
    if flags & ACK_EXTENDED:
        (length,) = struct.unpack_from("=I", body, 4)
        start = 4 + (messages.HEADER.size if flags & ACK_CAPPED else length)
        words = by_kind(body[start:]).get(1, b"").rstrip(b"\0").decode("ascii", "replace")
    raise OSError(code, f"{os.strerror(code)}{': ' if words else ''}{words}")


def _words(error: OSError) -> str:
    return error.strerror or str(error)


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ForcingError(f"cannot {what}: {_words(error)}") from error


def _as(found: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    return wanted if set(found) == set(wanted) else found


def _in_order(found: dict[str, _Part], names: list[str]) -> tuple[_Part, ...]:
    rest: list[str] = [name for name in found if name not in names]
    return tuple(found[name] for name in [*names, *rest] if name in found)


def _first_other(what: str, found: tuple[_Part, ...], wanted: tuple[_Part, ...]) -> str | None:
    """Name the first part in which two tables differ."""
    pairs = zip_longest(found, wanted)
    name = next((str((one or other).name) for one, other in pairs if one != other and (one or other)), None)
    return None if name is None else f"{what} {name} differs"
