"""Whether anybody still waits for what a thread is making."""

from __future__ import annotations

from contextvars import ContextVar

from terraloom.errors import TerraloomError


class Abandoned(TerraloomError):
    """Nobody waits for the answer any more."""


class Ticket:
    """One piece of work, and whether it is still wanted."""

    def __init__(self) -> None:
        self.wanted = True


current: ContextVar[Ticket | None] = ContextVar("current", default=None)


def check_wanted() -> None:
    """Go on only while somebody waits.

    Raises:
        Abandoned: all who asked have gone, or their time is up.
    """
    ticket = current.get()
    if ticket is not None and not ticket.wanted:
        raise Abandoned("nobody waits for this any more")
