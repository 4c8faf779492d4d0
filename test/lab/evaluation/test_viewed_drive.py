# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rerun", reason="Rerun is not installed (extra view)")
from rrd import rows_of, texts_of

from binvpr_ros.config import Config
from binvpr_ros.images import from_thumbnail
from binvpr_ros.lab.evaluation.closure_stage import Drive
from binvpr_ros.lab.evaluation.datasets import Options
from binvpr_ros.lab.evaluation.datasets.rendered import RenderedBuilding
from binvpr_ros.lab.evaluation.datasets.sequences import ListedSequence
from binvpr_ros.lab.evaluation.viewed_drive import ViewedDrive
from binvpr_ros.local_features.kinds import open_local_features
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.recognizer import PlaceRecognizer, Recognition


@pytest.fixture(scope="module")
def drive(model: Path) -> Drive:
    """A drive through the rendered building, 16 seconds long, that comes back to where it began."""
    building = RenderedBuilding.make(Options(exclude_seconds=5.0), images=240)
    network = DescriptorNetwork(model)
    descriptions = [network.describe(image) for image in building.queries]
    return Drive(network, building, descriptions, open_local_features(Config.local_features))


def test_a_file_holds_what_the_recognizer_said(drive: Drive, tmp_path: Path) -> None:
    file, said = tmp_path / "drive.rrd", dict[int, Recognition]()
    with ViewedDrive.open(drive.sequence, viewer=False, file=file) as viewed:

        def seen(index: int, recognizer: PlaceRecognizer, recognition: Recognition) -> None:
            said[index] = recognition
            viewed(index, recognizer, recognition)

        stage = drive.through(drive.config, seen)
    assert stage.figures() == drive.through(drive.config).figures(), "nothing changes because somebody looks"
    keyframes = [recognition for recognition in said.values() if recognition.keyframe is not None]
    scores = rows_of(file, "Scalars:scalars")

    closures = [closure for recognition in keyframes for closure in recognition.verdict.closures]
    assert len(closures) == len(stage.closures) >= 5
    shown = sorted(row for path, rows in scores.items() if path.startswith("score/closed") for row in rows)
    assert shown == sorted((closure.query.stamp, [closure.score]) for closure in closures)
    assert len(scores["score/closed_same"]) == stage.true.sum()
    assert len(rows_of(file, "LineStrips2D:strips")["route/closures"]) == len(closures)

    refused = Counter(
        (recognition.verdict.best or recognition.verdict.refused[0]).reason.value  # type: ignore[union-attr]
        for recognition in keyframes
        if not recognition.verdict.closures
    )
    assert len(refused) >= 2
    counts = {path.removeprefix("outcomes/"): rows[-1][1][0] for path, rows in scores.items() if "outcomes/" in path}
    assert counts == {"closed": len(keyframes) - refused.total(), **refused}
    for reason in refused.keys() - {"no_history"}:  # for which there is no match
        assert len(scores[f"score/{reason}"]) == refused[reason]
    assert texts_of(file)[-1].startswith(f"## {counts['closed']:.0f} of {len(keyframes)} keyframes closed a loop")

    images = rows_of(file, "EncodedImage:blob")
    assert {"camera", "match/closure", "match/refusal"} <= images.keys()
    queries = {closure.query.stamp for closure in closures}
    assert {stamp for stamp, _ in images["match/closure"]} <= queries
    assert not {stamp for stamp, _ in images["match/refusal"]} & queries
    picture = from_thumbnail(bytes(images["match/closure"][0][1][0]))
    assert picture is not None
    assert picture.shape[1] > 2 * picture.shape[0], "a query beside its match"
    assert file.stat().st_size < 16 / 300 * 100e6, "five minutes of it are below 100 MB"


def test_a_drive_without_poses_shows_when_places_were_seen_before(drive: Drive, tmp_path: Path) -> None:
    file, stamps, images = tmp_path / "drive.rrd", drive.sequence.stamps, drive.sequence.queries
    listed = ListedSequence.from_pairs("listed", images, stamps, np.array([(200, 10)]), Options(exclude_seconds=5.0))
    other = Drive(drive.network, listed, drive._descriptions, drive.local_features)
    with ViewedDrive.open(listed, viewer=False, file=file) as viewed:
        stage = other.through(other.config, viewed)
    scalars = rows_of(file, "Scalars:scalars")
    seen = [row for path, rows in scalars.items() if path.startswith("seen/closed") for row in rows]
    expected = [(stamps[query], [(stamps[match] - stamps[0]) / 1e9]) for query, match in stage.closures]
    assert len(seen) >= 5
    assert sorted(seen) == sorted(expected)
    assert not rows_of(file, "LineStrips2D:strips")
