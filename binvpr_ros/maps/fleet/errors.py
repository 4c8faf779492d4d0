# SPDX-License-Identifier: Apache-2.0
"""What keeps a robot from the map of its fleet."""

from __future__ import annotations


class FleetError(RuntimeError):
    """The fleet's map cannot be used; the message says what is wrong and what to do.

    `lasting` ones do not pass by themselves: somebody must change a parameter or the server.
    """

    def __init__(self, sentence: str, *, lasting: bool = False) -> None:
        super().__init__(sentence)
        self.lasting = lasting


class ForkError(Exception):
    """The server holds another map under this one's uuid, such as the original of a restored copy.

    `common` is the last keyframe that both hold alike, -1 where there is none.
    """

    def __init__(self, sentence: str, common: int = -1) -> None:
        super().__init__(sentence)
        self.common = common
