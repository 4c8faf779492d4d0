# SPDX-License-Identifier: Apache-2.0
"""Stream a drive to Rerun as it happens: to its viewer, to a file, or to both.

The top row shows the route with its closures, and the latest closure and refusal with their matched features; a drive
without positions has a plot of when each place was seen before instead of a route. The bottom row shows the camera, the
scores, and what became of the keyframes. The rate of images and pictures is limited, so that a file stays small.
"""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from binvpr_ros.images import Image, thumbnail
from binvpr_ros.installation import how_to_install_module
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.lab.evaluation.datasets.sequences import Relation
from binvpr_ros.loop_closure import Refusal
from binvpr_ros.pictures import GAP, PANEL

Place = tuple[float, float]
"""x to the right and y downwards, in metres."""
Colour = tuple[int, int, int]

TIMELINE = "stamp"
SINCE_EPOCH = 10**9 * NANOSECONDS
"""Stamps from September 2001 on are times of day; earlier ones, such as a simulation's, are times since a start."""

IMAGE_SIDE, IMAGE_QUALITY, IMAGE_PAUSE = 400, 70, 0.2
PICTURE_SIDE, PICTURE_QUALITY, PICTURE_PAUSE = 2 * PANEL[0] + GAP, 70, 0.3
"""Of camera images, and of pictures of matches: most pixels of the longer side, JPEG quality (0 to 100), and least
seconds between two of them."""
MARGIN, LEAST_MARGIN = 0.05, 0.5
"""Around the route: a share of its longer side, and at least so many metres, since a robot may stand still."""
SEND_PAUSE = 0.5
"""Seconds over which what happens is collected before it is sent."""
FLUSH_SECONDS = 10.0

GREEN: Colour = (70, 190, 90)
AMBER: Colour = (240, 190, 40)
RED: Colour = (225, 60, 60)
GREY: Colour = (140, 142, 148)
BLUE: Colour = (70, 150, 240)


class _Series(NamedTuple):
    """How closures of a kind, or refusals, are named, and drawn."""

    path: str
    name: str
    colour: Colour


CLOSED = "closed"
CLOSURES = {
    None: _Series(CLOSED, "loop closure", GREEN),
    Relation.SAME: _Series("closed_same", "loop closure, same place", GREEN),
    Relation.NEAR: _Series("closed_near", "loop closure, near", AMBER),
    Relation.APART: _Series("closed_apart", "loop closure, apart: false", RED),
}
"""By what is known of them; None: there is no ground truth."""
REFUSALS = {
    reason: _Series(reason.value, reason.value.replace("_", " "), colour)
    for reason, colour in {
        Refusal.LOW_SCORE: (180, 180, 90),
        Refusal.NOT_AMONG_BEST: (150, 120, 200),
        Refusal.NOT_VERIFIED: (170, 130, 100),
        Refusal.FEW_INLIERS: (255, 140, 70),
        Refusal.NOT_CONFIRMED: (200, 150, 180),
        Refusal.NEVER_LEFT: (90, 160, 220),
        Refusal.ODOMETRY: (60, 180, 180),
        Refusal.AMBIGUOUS: (230, 110, 190),
        Refusal.NO_HISTORY: (140, 142, 148),
    }.items()
}
"""Of keyframes; images without contrast become none."""


class ViewError(ValueError):
    """A drive cannot be shown; the message says why and what to do."""


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the options that say where a drive is shown."""
    parser.add_argument("--view", action="store_true", help="show the drive in Rerun's viewer as it happens")
    parser.add_argument("--record", type=Path, metavar="FILE.rrd", help="write what the viewer shows to this file")


class View:
    """Shows a drive. It is told what happens, in any order; all stamps are those of images, in nanoseconds.

    `viewer` opens Rerun's viewer; `file` is the recording to write. `corners` are two opposite corners of the area that
    the drive covers, None if images have no positions; `walls` are lines to draw under the route. Raises ViewError if
    Rerun is not installed, or cannot open the viewer or the file.
    """

    def __init__(
        self,
        name: str,
        *,
        viewer: bool = False,
        file: Path | None = None,
        corners: tuple[Place, Place] | None = None,
        walls: Sequence[tuple[Place, Place]] = (),
    ) -> None:
        try:
            import rerun
        except ModuleNotFoundError as error:
            if error.name != "rerun":
                raise
            raise ViewError(f"Rerun is not installed; {how_to_install_module('rerun', 'view')}") from None
        self._rerun: Any = rerun
        self._placed = corners is not None
        self._start: int | None = None
        self._place_at: dict[int, Place] = {}
        self._route_end: Place | None = None
        self._shown_at: dict[str, int] = {}
        # Many small pieces would make a file larger by a third, and slower to open.
        pieces = rerun.ChunkBatcherConfig(flush_tick=SEND_PAUSE)
        self._stream: Any = rerun.RecordingStream("binvpr", batcher_config=pieces)
        self._stream.set_log_tick_enabled(False)
        self._stream.set_log_time_enabled(False)
        self._open(viewer, file)
        self._stream.send_recording_name(name)
        self._stream.send_blueprint(_layout(corners))
        self._describe(walls)

    def image(self, stamp: int, image: Image, place: Place | None = None) -> None:
        """Show what the camera sees, uint8 [H,W,3] RGB or [H,W] grey, and where the robot is."""
        if place is not None:
            self._place_at[stamp] = place
        if not self._due("camera", stamp, IMAGE_PAUSE):
            return
        self._at(stamp)
        self._log_jpeg("camera", image, IMAGE_SIDE, IMAGE_QUALITY)
        if place is not None:
            if self._route_end is not None:
                self._log(
                    "route/driven",
                    self._rerun.LineStrips2D([[self._route_end, place]], colors=BLUE, radii=self._pixels(1.5)),
                )
            self._log("route/robot", self._rerun.Points2D([place], colors=BLUE, radii=self._pixels(6)))
            self._route_end = place
        if not self._placed:
            self._log("seen/now", self._rerun.Scalars(self._seconds(stamp)))

    def closure(self, query: int, match: int, score: float, relation: Relation | None = None) -> None:
        """Show a loop closure from the image at `query` to the one at `match`; `relation` is what they really show."""
        series = CLOSURES[relation]
        self._at(query)
        self._log(f"score/{series.path}", self._rerun.Scalars(score))
        if not self._placed:
            self._log(f"seen/{series.path}", self._rerun.Scalars(self._seconds(match)))
        elif (here := self._place_at.get(query)) is not None and (there := self._place_at.get(match)) is not None:
            self._log(
                "route/closures",
                self._rerun.LineStrips2D([[here, there]], colors=series.colour, radii=self._pixels(1.5)),
            )

    def refusal(self, query: int, reason: Refusal, score: float) -> None:
        """Show that the best match of the keyframe at `query` was refused."""
        self._at(query)
        self._log(f"score/{REFUSALS[reason].path}", self._rerun.Scalars(score))

    def picture(self, stamp: int, picture: Image, closed: bool) -> None:
        """Show a keyframe beside its best match, uint8 [H,W,3] RGB, which is a closure or not."""
        path = "match/closure" if closed else "match/refusal"
        if self._due(path, stamp, PICTURE_PAUSE):
            self._at(stamp)
            self._log_jpeg(path, picture, PICTURE_SIDE, PICTURE_QUALITY)

    def outcomes(self, stamp: int, counts: Mapping[str, int]) -> None:
        """Show what became of the keyframes so far: how many CLOSED a loop, or did not, by the value of the Refusal."""
        self._at(stamp)
        for name, count in counts.items():
            self._log(f"outcomes/{name}", self._rerun.Scalars(count))
        text = _summary(counts)
        self._log("outcomes/summary", self._rerun.TextDocument(text, media_type=self._rerun.MediaType.MARKDOWN))

    def close(self) -> None:
        """Send, or write, what is left."""
        try:
            self._stream.flush(timeout_sec=FLUSH_SECONDS)
        except (RuntimeError, ValueError) as error:
            print(f"view: the end of the drive was not sent ({error})", file=sys.stderr)
        self._stream.disconnect()

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, viewer: bool, file: Path | None) -> None:
        """Open the viewer and the file; raises ViewError."""
        rerun, sinks = self._rerun, []
        if viewer:
            if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
                raise ViewError(
                    "there is no display to open Rerun's viewer on; write a file with --record FILE.rrd, and open it "
                    "elsewhere with: rerun FILE.rrd"
                )
            sinks.append(rerun.GrpcSink())
        if file is not None:
            sinks.append(rerun.FileSink(str(file)))
        try:
            if viewer:
                program = Path(sysconfig.get_path("scripts"), "rerun")  # which need not be on the PATH
                path = str(program) if program.is_file() else None
                rerun.spawn(connect=False, executable_path=path, recording=self._stream)
            self._stream.set_sinks(*sinks)
        except (RuntimeError, OSError) as error:
            what = " or ".join(filter(None, ("its viewer" if viewer else "", str(file or ""))))
            raise ViewError(f"Rerun cannot open {what}: {str(error).splitlines()[0]}") from None

    def _describe(self, walls: Sequence[tuple[Place, Place]]) -> None:
        """Log what stays as it is: names, colours, and walls."""
        rerun = self._rerun
        for series in (*CLOSURES.values(), *REFUSALS.values()):
            closure = series.path.startswith(CLOSED)
            dots = rerun.SeriesPoints(
                colors=series.colour, names=series.name, markers="Circle", marker_sizes=5.0 if closure else 2.5
            )
            self._log(f"score/{series.path}", dots, static=True)
            if closure:
                self._log(f"seen/{series.path}", dots, static=True)
        for path, name, colour in ((CLOSED, "closed a loop", GREEN), *REFUSALS.values()):
            self._log(f"outcomes/{path}", rerun.SeriesLines(colors=colour, names=name, widths=2.0), static=True)
        self._log("seen/now", rerun.SeriesLines(colors=GREY, names="now", widths=1.0), static=True)
        if walls:
            self._log("route/walls", rerun.LineStrips2D(walls, colors=GREY, radii=self._pixels(1)), static=True)

    def _at(self, stamp: int) -> None:
        """Log what follows at a stamp."""
        if self._start is None:
            self._start = stamp
        if self._start >= SINCE_EPOCH:
            self._stream.set_time(TIMELINE, timestamp=np.datetime64(stamp, "ns"))
        else:
            self._stream.set_time(TIMELINE, duration=np.timedelta64(stamp, "ns"))

    def _seconds(self, stamp: int) -> float:
        """Return the time since the drive began."""
        return (stamp - (self._start or 0)) / NANOSECONDS

    def _due(self, path: str, stamp: int, pause: float) -> bool:
        """Tell whether there was a pause since `path` was shown last, which it is now; a bag may start again."""
        last = self._shown_at.get(path)
        if last is not None and 0 <= stamp - last < round(pause * NANOSECONDS):
            return False
        self._shown_at[path] = stamp
        return True

    def _log(self, path: str, what: Any, static: bool = False) -> None:
        self._stream.log(path, what, static=static)

    def _log_jpeg(self, path: str, image: Image, side: int, quality: int) -> None:
        self._log(path, self._rerun.EncodedImage(contents=thumbnail(image, side, quality), media_type="image/jpeg"))

    def _pixels(self, radius: float) -> Any:
        return self._rerun.Radius.ui_points(radius)


def _layout(corners: tuple[Place, Place] | None) -> Any:
    """Return the arrangement of the panes, a rerun.blueprint.Blueprint; `corners` as of View."""
    import rerun.blueprint as rrb

    so_far = rrb.VisibleTimeRange(
        TIMELINE, start=rrb.TimeRangeBoundary.infinite(), end=rrb.TimeRangeBoundary.cursor_relative()
    )
    if corners is None:
        where = rrb.TimeSeriesView(
            origin="seen", name="When the place was seen before [s]", plot_legend=rrb.Corner2D.LeftTop
        )
    else:
        low, high = np.min(corners, axis=0), np.max(corners, axis=0)
        margin = max(MARGIN * (high - low).max(), LEAST_MARGIN)
        bounds = np.stack([low - margin, high + margin], axis=1)
        where = rrb.Spatial2DView(
            origin="route",
            name="Route and loop closures",
            visual_bounds=rrb.VisualBounds2D(x_range=bounds[0], y_range=bounds[1]),
            overrides={path: rrb.VisibleTimeRanges([so_far]) for path in ("route/driven", "route/closures")},
        )
    matches = rrb.Vertical(
        rrb.Spatial2DView(origin="match/closure", name="Latest loop closure"),
        rrb.Spatial2DView(origin="match/refusal", name="Latest refusal"),
    )
    below = rrb.Horizontal(
        rrb.Spatial2DView(origin="camera", name="Camera"),
        rrb.TimeSeriesView(
            origin="score", name="Score (0: like the map as a whole, 1: like the keyframe before)",
            axis_y=rrb.ScalarAxis(range=(0.0, 1.05)), plot_legend=rrb.Corner2D.RightBottom,
        ),
        rrb.Tabs(
            rrb.TextDocumentView(origin="outcomes/summary", name="What became of the keyframes"),
            rrb.TimeSeriesView(origin="outcomes", name="over time", plot_legend=rrb.Corner2D.LeftTop),
        ),
        column_shares=[4, 7, 5],
    )  # fmt: skip
    return rrb.Blueprint(
        rrb.Vertical(rrb.Horizontal(where, matches, column_shares=[5, 4]), below, row_shares=[5, 3]),
        rrb.TimePanel(state="collapsed", timeline=TIMELINE),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        auto_layout=False,
        auto_views=False,
    )


def _summary(counts: Mapping[str, int]) -> str:
    """Return the outcomes of keyframes as text in Markdown, the most frequent refusal first."""
    refused = sorted(((count, name) for name, count in counts.items() if name != CLOSED and count), reverse=True)
    lines = [f"## {counts.get(CLOSED, 0)} of {sum(counts.values())} keyframes closed a loop"]
    if refused:
        lines += ["", "| others | reason of their best match |", "| ---: | --- |"]
        lines += [f"| {count} | {name.replace('_', ' ')} |" for count, name in refused]
    return "\n".join(lines)
