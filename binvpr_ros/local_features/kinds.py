# SPDX-License-Identifier: Apache-2.0
"""The kinds of local features that there are, by the tag in their bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import LOCAL_MODEL, share_directory
from binvpr_ros.images import Image
from binvpr_ros.local_features import learned, orb
from binvpr_ros.local_features.features import LEARNED, NO_PAIRS, ORB, Features, Pairs, Tag
from binvpr_ros.network.model_card import ModelCardError


class LocalFeatures(Protocol):
    """Finds the local features of an image; a module is one, or an object."""

    @property
    def tag(self) -> Tag:
        """The tag of what it finds."""

    def extract(self, image: Image, visible: NDArray[np.uint8] | None = None) -> Features:
        """Return the local features of a uint8 image, [H,W,3] RGB or [H,W] grey, of any size.

        With `visible`, uint8 of any size that stands for the whole image, only where that is not 0.
        """


MATCHERS: Mapping[int, Callable[[Features, Features], Pairs]] = {ORB[0]: orb.matches, LEARNED: learned.matches}
"""By kind: which features [M] of the one image are which [M] of the other."""


def matches(query: Features, match: Features) -> Pairs:
    """Return which features [M] of the one image are which [M] of the other: none where their tags differ."""
    comparable = query.tag == match.tag and query.descriptors.shape[1] == match.descriptors.shape[1]
    if not comparable or query.tag[0] not in MATCHERS:
        return NO_PAIRS
    return MATCHERS[query.tag[0]](query, match)


NAMES = ("orb", "learned")
"""That need no file of the user's."""


def open_local_features(name: str, threads: int = 1, untried_runtime: bool = False) -> LocalFeatures:
    """Return the local features that the parameter `local_features` names: ORB, or those of a network.

    Raises ModelCardError and DescriptorError where the network's file cannot be used.
    """
    if name == "orb":
        return orb
    path = share_directory() / "models" / LOCAL_MODEL if name == "learned" else Path(name)
    if not path.is_file():
        raise ModelCardError(
            f"local_features is {name!r}, and there is no file {path}; write orb, learned, or a model file"
        )
    return learned.LearnedFeatures(path, threads, untried_runtime=untried_runtime)
