"""What the answers to one statement go through on their way to the client.

What lives here: the value. What must not: following answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from capd.enforcer.limits.counting import Counting
from capd.enforcer.proxy.mysql.masked import MaskedAnswers


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Of one statement.

    Attributes:
        masked: what hides; None: nothing is hidden.
        counting: what counts against limits; None: nothing is counted.
    """

    masked: MaskedAnswers | None = None
    counting: Counting | None = None


FREE: Final = Passage()
"""Answers go on as they are."""
