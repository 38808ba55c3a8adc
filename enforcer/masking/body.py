"""One body on its way through masking: as text, as JSON, or packed; from its content back to the bytes of the stream.

What lives here: what looks at a body, which of its bytes are judged. What must not: framing; whoever has it gives the content
and where it stands.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Final, cast

from capd.enforcer.masking import packed
from capd.enforcer.masking.json_path import JsonScanner
from capd.enforcer.masking.packed import Packed
from capd.enforcer.masking.place import Place
from capd.enforcer.masking.rules import Rules
from capd.enforcer.masking.scanner import Scanner

CODINGS: Final = frozenset({"content-encoding", "grpc-encoding"})
_FAR: Final = 1 << 62


class BodyMask:
    """One body.

    Offsets inside are those of the content; places are given by their offsets in the stream.
    """

    __slots__ = ("_inner", "_kind", "_looks", "_pieces", "_position", "_rules", "_waiting")

    def __init__(self, rules: Rules, media_type: str = "", coding: str = "") -> None:
        """Begin.

        Args:
            rules: what is looked for.
            media_type: in lower case; empty when nobody knows.
            coding: content codings, separated by commas.
        """
        self._rules = rules
        self._kind = [media_type, coding]
        self._position = 0
        self._pieces: list[tuple[int, int, int]] = []
        """Content that is not decided yet: its offset in the content, in the stream, its length."""
        self._waiting: list[bytes] = []
        """Content that was not looked at yet."""
        inner: tuple[Scanner | JsonScanner, ...] = (Scanner(rules),)
        if rules.json_paths and ("json" in media_type or not media_type):
            inner = (*inner, JsonScanner(rules.json_paths))
        self._inner = inner
        self._looks: tuple[Scanner | JsonScanner | Packed, ...] = inner
        codings = [word.strip() for word in coding.split(",") if word.strip() not in ("", "identity")]
        if codings and (rules.unreadable or packed.known(codings)):
            # What nobody here can unpack, and is kept nevertheless, is looked at as it is.
            self._looks = (self._packed(codings),)

    @classmethod
    def after(cls, rules: Rules, fields: Mapping[str, object]) -> BodyMask:
        """Give the mask for the body that a head announces."""
        media_type, coding = "", ""
        headers = fields.get("headers")
        for pair in headers if isinstance(headers, Sequence) else ():
            name, value = str(pair[0]).lower(), str(pair[1])
            if name == "content-type":
                media_type = value.lower()
            elif name in CODINGS:
                # A message of gRPC is packed by itself, between prefixes that are not: nothing here looks into that.
                known = value.lower() if name == "content-encoding" or value.lower() == "identity" else "grpc"
                coding = f"{coding},{known}"
        return cls(rules, media_type, coding)

    def _packed(self, codings: list[str]) -> Packed:
        found = False

        def look(data: bytes, final: bool) -> tuple[bool, int]:
            nonlocal found
            for scanner in self._inner:
                found = bool(scanner.feed(data, final=final)) or found
            return found, min(scanner.decided for scanner in self._inner)

        name = codings[0] if packed.known(codings) else "unknown"
        return Packed(name, look, 0, unreadable=self._rules.unreadable)

    @property
    def busy(self) -> bool:
        """Whether something of it is not decided."""
        return bool(self._pieces)

    @property
    def undecided(self) -> int | None:
        """Where in the stream the first byte is that is not decided; None: there is none."""
        if not self._pieces:
            return None
        offset, stream, _ = self._pieces[0]
        return stream + max(0, min(look.decided for look in self._looks) - offset)

    def take(self, content: bytes, stream: int) -> None:
        """Take the next part, which stands at an offset in the stream; `judge` looks at it."""
        self._pieces.append((self._position, stream, len(content)))
        self._position += len(content)
        self._waiting.append(content)

    def judge(self, *, final: bool = False) -> list[Place]:
        """Look at what came; what may be the beginning of something waits for more, unless this was all."""
        if not self._waiting and not final:
            return []
        content = b"".join(self._waiting)
        self._waiting.clear()
        places = [place for look in self._looks for place in self._placed(look.feed(content, final=final))]
        decided = min(look.decided for look in self._looks)
        done = 0
        while done < len(self._pieces) and self._pieces[done][0] + self._pieces[done][2] <= decided:
            done += 1
        del self._pieces[:done]
        return places

    def gap(self, length: int) -> list[Place]:
        """Bytes are missing behind what came: all of it is judged without them, and so is what may be the rest of something."""
        places = self.judge()
        places += [place for look in self._looks for place in self._placed(look.gap(length))]
        self._position += length
        self._pieces.clear()
        return places

    def cut(self) -> list[Place]:
        """What is judged has to be judged now, without what follows."""
        places = self.judge()
        for look in self._looks:
            if isinstance(look, Scanner):
                places += self._placed(look.cut())
            elif isinstance(look, Packed):
                places += self._placed(look.gap(0))
        return places

    def _placed(self, places: list[Place]) -> list[Place]:
        """Give places in the content as places in the stream: framing may stand in them."""
        result: list[Place] = []
        for place in places:
            at = max(0, bisect_right(self._pieces, (place.start, _FAR, _FAR)) - 1)
            for content, stream, length in self._pieces[at:]:
                if content >= place.end:
                    break
                start, end = max(place.start, content), min(place.end, content + length)
                if start < end:
                    result.append(place._replace(start=start - content + stream, end=end - content + stream))
        return result

    # -- over the recorder's end

    def save(self) -> list[object]:
        """Give its state as plain values."""
        looks = [look.save() for look in self._looks]
        inner = [scanner.save() for scanner in self._inner]
        return [self._kind, looks, inner, self._position, self._pieces, self._waiting]

    @classmethod
    def restored(cls, rules: Rules, saved: Sequence[object]) -> BodyMask:
        """Give a body as it was saved."""
        kind, looks, inner, position, pieces, waiting = cast(
            "tuple[list[str], list[list[object]], list[list[object]], int, list[tuple[int, int, int]], list[bytes]]",
            tuple(saved),
        )
        body = cls(rules, *kind)
        body._position = position
        body._pieces = [(offset, stream, length) for offset, stream, length in pieces]
        body._waiting = list(waiting)
        first = body._looks[0]
        if isinstance(first, Packed):
            first.restore(looks[0])
            return body
        body._inner = tuple(
            Scanner.restored(rules, state) if isinstance(scanner, Scanner) else JsonScanner.restored(rules.json_paths, state)
            for scanner, state in zip(body._inner, inner, strict=True)
        )
        body._looks = body._inner
        return body
