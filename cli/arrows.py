"""How it is shown who speaks.

What lives here: sign and style of a direction. What must not: what is said.
"""

from __future__ import annotations

from typing import Final

from capd.cli.line import Style
from capd.recording.record import Direction

ARROWS: Final = {Direction.REQUEST: "→", Direction.RESPONSE: "←"}
STYLES: Final = {Direction.REQUEST: Style.REQUEST, Direction.RESPONSE: Style.RESPONSE}
NO_ARROW: Final = "·"
