# SPDX-License-Identifier: Apache-2.0
"""The kinds of local features that there are, by the tag in their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import Image
from binvpr_ros.local_features import orb
from binvpr_ros.local_features.features import NO_PAIRS, ORB, Features, Pairs


class LocalFeatures(Protocol):
    """Finds the local features of an image, and matches them with those of another; a module is one, or an object."""

    def extract(self, image: Image, visible: NDArray[np.uint8] | None = None) -> Features:
        """Return the local features of a uint8 image, [H,W,3] RGB or [H,W] grey, of any size.

        With `visible`, uint8 of any size that stands for the whole image, only where that is not 0.
        """

    def matches(self, query: Features, match: Features) -> Pairs:
        """Return which features [M] of the one image are which [M] of the other; both are of this kind."""


KINDS: Mapping[int, LocalFeatures] = {ORB: orb}


def matches(query: Features, match: Features) -> Pairs:
    """Return which features [M] of the one image are which [M] of the other: none where their kinds differ."""
    comparable = query.kind == match.kind and query.descriptors.shape[1] == match.descriptors.shape[1]
    if not comparable or query.kind not in KINDS:
        return NO_PAIRS
    return KINDS[query.kind].matches(query, match)
