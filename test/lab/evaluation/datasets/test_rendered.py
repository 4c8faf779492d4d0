# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError, Options
from binvpr_ros.lab.evaluation.datasets.rendered import RenderedBuilding
from binvpr_ros.lab.evaluation.datasets.truth import ViewTruth
from binvpr_ros.local_features.orb import extract
from binvpr_ros.recordings.world import World, drive


def test_the_drive_is_the_worlds() -> None:
    building = RenderedBuilding.make(Options(exclude_seconds=1), images=60)
    stops = list(drive(60))
    assert len(building.queries) == 60
    np.testing.assert_array_equal(building.queries[7], World().render(*stops[7]))
    assert building.queries[7] is building.queries[7]
    assert building.stamps[[0, 3, 15]].tolist() == [0, 200_000_000, 10**9]
    expected = [[a.same_place(b) for b, _, _ in stops] for a, _, _ in stops]
    assert isinstance(building.truth, ViewTruth)
    np.testing.assert_array_equal(replace(building.truth, candidates=None).dense(), expected)
    np.testing.assert_array_equal(building.truth.dense(), np.tril(expected, -15))
    assert building.truth.answerable.any()


def test_true_matches_obey_the_poses_of_the_camera() -> None:
    building = RenderedBuilding.make(Options(exclude_seconds=1), images=300)
    assert building.camera is not None
    assert np.allclose(np.linalg.det(building.rotations), 1)
    obeyed, mirrored = [], []
    for query in range(8, 300, 20):
        ours, theirs = (extract(building.queries[index]) for index in (query, query - 4))
        pairs = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(ours.descriptors, theirs.descriptors)
        near = [pair for pair in pairs if pair.distance < 30]
        rays = [
            building.camera.rays(features.points(np.array(chosen, np.intp), building.camera.size))
            for features, chosen in ((ours, [p.queryIdx for p in near]), (theirs, [p.trainIdx for p in near]))
        ]
        obeyed.append(building.obeys_poses(query, query - 4, rays[0], rays[1]))
        # In a mirror they would not.
        mirrored.append(building.obeys_poses(query, query - 4, rays[0] * (-1, 1), rays[1] * (1, -1)))
    assert all(obeyed)
    assert np.mean(mirrored) < 0.1


def test_a_drive_needs_two_images() -> None:
    with pytest.raises(DatasetError, match="1 images are too few for a drive"):
        RenderedBuilding.make(Options(), images=1)
