"""Turns: which moments are traced, so that clean and traced ones meet the same weather and the same text."""

from __future__ import annotations

# Clean and traced gaps take turns C T T C, so that a drift over the run falls on both alike. First tokens come once a
# request, so there are few of them: they simply alternate, which leaves more clean ones of three or five. So do whole requests
# where tokens are guessed: how many are right depends on the place in the text, which a choice of gaps would misrepresent.
TRACED_TURNS = (False, True, True, False)
FIRST_TRACED_TURNS = (False, True)
NEVER, ALWAYS = (False,), (True,)


class TraceSchedule:
    """Counts gaps (what lies between two visible tokens), each of which is traced as a whole or not at all.

    Args:
        whole_requests: requests are traced as a whole.
    """

    def __init__(self, *, whole_requests: bool = False) -> None:
        self._whole_requests = whole_requests
        self.start_over()

    def start_over(self) -> None:
        """The first measured request begins: its first gap is a clean one."""
        self._gaps = {True: 0, False: 0}  # of first tokens, and of later ones
        self._requests = 0

    def of_request(self) -> tuple[bool, ...] | None:
        """The turns of the request that begins; None: its gaps take turns."""
        if not self._whole_requests:
            return None
        traced = FIRST_TRACED_TURNS[self._requests % len(FIRST_TRACED_TURNS)]
        self._requests += 1
        return ALWAYS if traced else NEVER

    def of_gap(self, turns: tuple[bool, ...] | None, *, first: bool) -> tuple[bool, bool]:
        """Whether the gap that begins is traced, and if so with the processor's counters, which cost more than the clock.

        Args:
            turns: those of its request; None: the usual ones.
            first: it leads to the request's first token.
        """
        turns = turns or (FIRST_TRACED_TURNS if first else TRACED_TURNS)
        turn = self._gaps[first]
        self._gaps[first] += 1
        return turns[turn % len(turns)], first or turn % 2 == 1
