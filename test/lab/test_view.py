# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rerun", reason="Rerun is not installed (extra view)")
from rrd import rows_of, texts_of

from binvpr_ros.images import from_thumbnail
from binvpr_ros.lab.evaluation.datasets.sequences import Relation
from binvpr_ros.lab.view import CLOSED, CLOSURES, IMAGE_SIDE, REFUSALS, View, ViewError
from binvpr_ros.loop_closure import Refusal

SECOND = 10**9
GREY_IMAGE = np.full((48, 64), 100, np.uint8)
LARGE = np.random.default_rng(3).integers(0, 255, (1080, 1920, 3), np.uint8)


def test_a_route_with_its_closures(tmp_path: Path) -> None:
    file = tmp_path / "drive.rrd"
    with View("drive", file=file, corners=((0, 0), (3, 1)), walls=[((0, 0), (3, 0))]) as view:
        for second in range(4):
            view.image(second * SECOND, GREY_IMAGE, (float(second), 1.0))
        view.closure(3 * SECOND, 0, 0.75, Relation.SAME)
        view.closure(3 * SECOND, 1 * SECOND, 0.5, Relation.APART)
        view.closure(3 * SECOND, 77 * SECOND, 0.5)  # an image that nobody has told of has no place to draw it at
        view.refusal(2 * SECOND, Refusal.FEW_INLIERS, 0.25)
    strips = rows_of(file, "LineStrips2D:strips")
    assert [strip for _, (strip,) in strips["route/driven"]] == [[[x, 1], [x + 1, 1]] for x in range(3)]
    assert [strip for _, (strip,) in strips["route/closures"]] == [[[3, 1], [0, 1]], [[3, 1], [1, 1]]]
    scores = rows_of(file, "Scalars:scalars")
    assert {path: [score for _, (score,) in rows] for path, rows in scores.items()} == {
        "score/closed_same": [0.75],
        "score/closed_apart": [0.5],
        "score/closed": [0.5],
        "score/few_inliers": [0.25],
    }
    assert scores["score/few_inliers"][0][0] == 2 * SECOND


def test_without_positions_it_shows_when_a_place_was_seen_before(tmp_path: Path) -> None:
    file, start = tmp_path / "drive.rrd", 1_700_000_000 * SECOND
    with View("drive", file=file) as view:
        view.image(start, GREY_IMAGE)
        view.image(start + 30 * SECOND, GREY_IMAGE)
        view.closure(start + 30 * SECOND, start + 12 * SECOND, 0.9)
    seen = rows_of(file, "Scalars:scalars")
    (stamp, before), (_, now) = seen["seen/closed"][0], seen["seen/now"][-1]
    assert (before, now) == ([12.0], [30.0])
    assert stamp == start + 30 * SECOND
    assert "route/driven" not in rows_of(file, "LineStrips2D:strips")


def test_what_became_of_the_keyframes(tmp_path: Path) -> None:
    file = tmp_path / "drive.rrd"
    with View("drive", file=file) as view:
        view.outcomes(1 * SECOND, {Refusal.NO_HISTORY.value: 1})
        view.outcomes(2 * SECOND, {CLOSED: 3, Refusal.NO_HISTORY.value: 1, Refusal.FEW_INLIERS.value: 4, "odometry": 0})
    first, last = texts_of(file)
    assert first.startswith("## 0 of 1 keyframes closed a loop")
    assert last.splitlines()[0] == "## 3 of 8 keyframes closed a loop"
    assert last.splitlines()[-2:] == ["| 4 | few inliers |", "| 1 | no history |"]
    counts = rows_of(file, "Scalars:scalars")
    assert counts["outcomes/few_inliers"][-1] == (2 * SECOND, [4.0])


def test_a_fast_camera_does_not_fill_the_file(tmp_path: Path) -> None:
    file = tmp_path / "drive.rrd"
    with View("drive", file=file, corners=((0, 0), (1, 1))) as view:
        for frame in range(200):  # two seconds
            view.image(frame * SECOND // 100, LARGE, (0.0, frame / 200))
            view.picture(frame * SECOND // 100, LARGE, closed=frame % 2 == 0)
    pictures = rows_of(file, "EncodedImage:blob")
    assert len(pictures["camera"]) == 10
    assert len(pictures["match/closure"]) + len(pictures["match/refusal"]) <= 14
    ((blob,),) = (blobs for _, blobs in pictures["camera"][:1])
    shown = from_thumbnail(bytes(blob))
    assert shown is not None
    assert max(shown.shape) == IMAGE_SIDE
    assert file.stat().st_size < 2 * 2**20, "of noise, which JPEG makes least of"


def test_a_bag_that_starts_again_is_shown_again(tmp_path: Path) -> None:
    file = tmp_path / "drive.rrd"
    with View("drive", file=file) as view:
        for stamp in (100, 101, 5, 6):
            view.image(stamp * SECOND, GREY_IMAGE)
    assert [stamp // SECOND for stamp, _ in rows_of(file, "EncodedImage:blob")["camera"]] == [5, 6, 100, 101]


def test_every_refusal_of_a_keyframe_has_a_name_and_a_colour() -> None:
    assert set(REFUSALS) == set(Refusal) - {Refusal.FEATURELESS}
    series = [*CLOSURES.values(), *REFUSALS.values()]
    assert len({one.path for one in series}) == len(series)


def test_what_cannot_be_opened_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ViewError, match=r"no display .* --record FILE\.rrd"):
        View("drive", viewer=True)
    with pytest.raises(ViewError, match=r"cannot open .*nowhere/drive\.rrd"):
        View("drive", file=tmp_path / "nowhere" / "drive.rrd")
    monkeypatch.setitem(sys.modules, "rerun", None)  # as where it is not installed
    with pytest.raises(ViewError, match=r"^Rerun is not installed; run, in a checkout: .*\[view\]"):
        View("drive", file=tmp_path / "drive.rrd")


def test_red_stays_red(tmp_path: Path) -> None:
    file = tmp_path / "drive.rrd"
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    with View("drive", file=file) as view:
        view.picture(0, red, closed=True)
    ((_, (blob,)),) = rows_of(file, "EncodedImage:blob")["match/closure"]
    shown = from_thumbnail(bytes(blob))
    assert shown is not None
    red_value, _, blue_value = shown[8, 8].tolist()
    assert blue_value < 50
    assert red_value > 200
