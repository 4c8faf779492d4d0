# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: a query beside what it was matched with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import Config
from binvpr_ros.images import Image, as_rgb, from_thumbnail, resize
from binvpr_ros.keyframes import NANOSECONDS, Keyframe
from binvpr_ros.local_features.camera import Camera, Points
from binvpr_ros.local_features.features import Features, Pairs
from binvpr_ros.local_features.geometry import verify
from binvpr_ros.local_features.kinds import matches
from binvpr_ros.loop_closure import LoopClosure, Refused
from binvpr_ros.recognizer import PlaceRecognizer, Recognition

Colour = tuple[int, int, int]

PANEL = 400, 300
"""Most pixels of each of two images, width and height: the picture stays below a megabyte."""
GAP = 6
TITLE_HEIGHT, LABEL_HEIGHT, MARGIN = 36, 24, 8
GROUND: Colour = (24, 26, 30)
WHITE: Colour = (235, 235, 235)
GREY: Colour = (160, 162, 168)
ACCEPTED: Colour = (110, 220, 120)
REFUSED: Colour = (255, 140, 70)
OUTLIER: Colour = (170, 60, 60)
OPACITY = 0.6
MOST_LINES = 100
"""Of more matches every second, third, and so on is joined by a line; the ends of all are shown."""
HUES: list[Colour] = [tuple(colour) for colour in cv2.cvtColor(
    np.array([[(40 + 4 * step, 160, 255) for step in range(32)]], np.uint8), cv2.COLOR_HSV2RGB
)[0].tolist()]  # fmt: skip
"""Of inliers, from the left of the query to its right: lines that belong together are seen to."""
RADIUS = 2
STRIPES = 60  # over the width of an image, where it shows the robot itself
SUBPIXEL_BITS = 4  # of the coordinates that OpenCV draws at


class Side(NamedTuple):
    """A keyframe, with its image where there is one (uint8, [H,W,3] RGB or [H,W] grey) and its features likewise."""

    keyframe: Keyframe
    image: Image | None
    features: Features | None


def picture_of(recognizer: PlaceRecognizer, image: Image, recognition: Recognition) -> Image | None:
    """Return a picture of `image`, as it was recognised, beside its best match, and of what came of that.

    It is uint8, [H,W,3] RGB; None where the image is no keyframe, or there was nothing to match.
    """
    query, judged = recognition.keyframe, recognition.verdict.best
    if query is None or judged is None or judged.match is None:
        return None
    features, kept, camera = recognizer.kept_of(judged.match)
    match = Side(judged.match, from_thumbnail(kept), features)
    seen = Side(query, _shaded(image, recognizer.mask.hidden), query.features)
    cameras = recognizer.camera, recognizer.camera and camera
    return match_picture(seen, match, judged, recognizer.config, *cameras)


def match_picture(
    query: Side,
    match: Side,
    judged: LoopClosure | Refused,
    config: Config,
    camera: Camera | None = None,
    match_camera: Camera | None = None,
) -> Image:
    """Return a picture, uint8 [H,W,3] RGB, of a query beside what it was matched with, and of what was made of that.

    Lines join the local features that obey one motion of the camera; where the match is no closure, red ones join those
    that match and do not obey it. A keyframe without an image is shown as its features.
    """
    panels = [_panel(side) for side in (query, match)]
    height = max(panel.shape[0] for panel in panels)
    picture = np.full((TITLE_HEIGHT + height + LABEL_HEIGHT, 2 * PANEL[0] + GAP, 3), GROUND, np.uint8)
    corners = []
    for panel, left in zip(panels, (0, PANEL[0] + GAP), strict=True):
        x, y = left + (PANEL[0] - panel.shape[1]) // 2, TITLE_HEIGHT
        picture[y : y + panel.shape[0], x : x + panel.shape[1]] = panel
        corners.append((x, y))

    if isinstance(judged, LoopClosure):
        title, colour = "loop closure", ACCEPTED
    else:
        title, colour = f"refused: {judged.reason.value.replace('_', ' ')}", REFUSED
    facts = f"score {judged.score:.2f} (at least {config.min_score:.2f})"
    if query.features is not None and match.features is not None:
        features = query.features, match.features

        def ends(pairs: Pairs) -> tuple[Points, Points]:
            """Return where the features of pairs are in the picture, [M,2] and [M,2]."""
            here, there = (
                found.points(chosen, panel.shape[1::-1]) + np.array(corner, np.float32)
                for found, chosen, panel, corner in zip(features, pairs, panels, corners, strict=True)
            )
            return here, there

        matched, found = matches(*features), verify(*features, camera, match_camera)
        obeying = found.pairs
        if isinstance(judged, Refused):
            _draw_lines(picture, *ends(matched), [OUTLIER] * len(matched[0]))
        _draw_lines(picture, *ends(obeying), [HUES[at] for at in query.features.positions[obeying[0], 0] >> 11])
        facts += f"   {found.inliers} of {len(matched[0])} matches agree, on {found.coverage:.0%} of the common view"
    width = _write(picture, title, (MARGIN, 24), 0.6, colour)
    _write(picture, facts, (MARGIN + width + 2 * MARGIN, 24), 0.45, WHITE)
    for name, side, left in zip(("query", "match"), (query, match), (0, PANEL[0] + GAP), strict=True):
        keyframe = side.keyframe
        label = f"{name}: keyframe {keyframe.id}, session {keyframe.session}, {keyframe.stamp / NANOSECONDS:.3f} s"
        _write(picture, label, (left + MARGIN, TITLE_HEIGHT + height + 17), 0.4, GREY)
    return picture


def _shaded(image: Image, hidden: NDArray[np.bool_] | None) -> Image:
    """Return an image with stripes over what is `hidden` [h,w] of it, since it shows the robot itself."""
    if hidden is None:
        return image
    height, width = image.shape[:2]
    there = cv2.resize(hidden.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    step = max(4, width // STRIPES)
    stripes = np.add.outer(np.arange(height), np.arange(width)) % (2 * step) < step
    shaded = image.copy()
    shaded[there & stripes] = shaded[there & stripes] // 4
    return shaded


def _panel(side: Side) -> Image:
    """Return the image of a keyframe, or else its features on a dark ground, as large as fits: [H,W,3] RGB."""
    if side.image is not None:
        width, height = side.image.shape[1::-1]
    elif side.features is not None:
        width, height = side.features.size
    else:
        width, height = PANEL
    width, height = max(1, width), max(1, height)  # what a map says may be anything
    scale = min(PANEL[0] / width, PANEL[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if side.image is not None:
        return as_rgb(resize(side.image, size))
    panel = np.full((size[1], size[0], 3), [channel + 16 for channel in GROUND], np.uint8)
    if side.features is None:
        _write(panel, "neither a thumbnail nor features are kept", (MARGIN, size[1] // 2), 0.45, GREY)
        return panel
    _draw_points(panel, side.features.points(np.arange(len(side.features.positions)), size), GREY)
    return panel


def _draw_lines(picture: Image, here: Points, there: Points, colours: Sequence[Colour]) -> None:
    """Draw lines between points [M,2] and [M,2] of the picture, through which, and between which, it can be seen."""
    drawn = picture.copy()
    every = len(colours) // MOST_LINES + 1
    for start, end, colour in zip(here[::every], there[::every], colours[::every], strict=True):
        cv2.line(drawn, _fixed(start), _fixed(end), colour, 1, cv2.LINE_AA, SUBPIXEL_BITS)
    cv2.addWeighted(drawn, OPACITY, picture, 1 - OPACITY, 0, dst=picture)
    for start, end, colour in zip(here, there, colours, strict=True):
        _draw_points(picture, np.stack([start, end]), colour)


def _draw_points(picture: Image, points: Points, colour: Colour) -> None:
    for point in points:
        cv2.circle(picture, _fixed(point), RADIUS << SUBPIXEL_BITS, colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)


def _write(picture: Image, text: str, at: tuple[int, int], scale: float, colour: Colour) -> int:
    """Write a line of text whose base line begins `at`, and return its width in pixels."""
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0]


def _fixed(point: Points) -> tuple[int, int]:
    """Return a point [2] as OpenCV takes it with SUBPIXEL_BITS."""
    x, y = np.round(point * (1 << SUBPIXEL_BITS)).astype(int).tolist()
    return x, y
