# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.slam.consistency import GATE, Constraints, Ends, beside_each_other, beside_odometry, outvoted
from binvpr_ros.slam.poses import Transform, inverse, rotation_of


def test_of_a_contradiction_the_one_with_fewer_others_stands() -> None:
    assert outvoted({}) == set()
    assert outvoted({1: {9}, 2: {9}, 3: {9}, 9: {1, 2, 3}}) == {9}


def test_where_both_contradict_as_many_neither_stands() -> None:
    assert outvoted({1: {2}, 2: {1}}) == {1, 2}


def test_no_two_that_stand_contradict_each_other() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        pairs = {tuple(sorted(pair)) for pair in rng.integers(0, 12, (15, 2)).tolist() if pair[0] != pair[1]}
        found: dict[int, set[int]] = {}
        for one, other in pairs:
            found.setdefault(one, set()).add(other)
            found.setdefault(other, set()).add(one)
        refused = outvoted(found)
        assert all(one in refused or other in refused for one, other in pairs)


def ends(poses: list[Transform], drift: float = 0.02) -> Ends:
    travelled = np.array([np.linalg.norm(pose[:3, 3]) for pose in poses])
    return Ends(np.stack(poses), drift**2 * np.eye(6) * travelled[:, None, None], travelled)


def at(x: float, y: float = 0.0) -> Transform:
    pose = np.eye(4)
    pose[:2, 3] = x, y
    return pose


def constraints(pairs: list[tuple[Transform, Transform, Transform]], sigma: float = 0.03) -> Constraints:
    queries, matches, motions = (list(some) for some in zip(*pairs, strict=True))
    return Constraints(
        ends(queries), ends(matches), np.stack(motions), np.tile(sigma**2 * np.eye(6), (len(pairs), 1, 1))
    )


def test_a_constraint_beyond_the_drift_contradicts_odometry() -> None:
    here, there = at(20.0), at(5.0)
    near, far = at(15.4), at(0.1)  # odometry says 15, and may be off by 0.3 for each deviation
    squared = beside_odometry(constraints([(here, there, near), (here, there, far)]))
    assert squared[0] < GATE < squared[1]


def test_the_drift_between_two_keyframes_grows_with_the_way() -> None:
    """Twice as far off after twice the way is as likely; noise that changes its sign would say otherwise."""
    some = [(at(way), at(0.0), at(way * 1.05)) for way in (10.0, 20.0, 40.0)]
    squared = beside_odometry(constraints(some, sigma=1e-4))
    np.testing.assert_allclose(squared, squared[0], rtol=0.01)


@pytest.mark.parametrize("turned", [0.0, 1.0], ids=["same heading", "turned"])
def test_constraints_are_held_against_the_way_between_them(turned: float) -> None:
    """Ten metres later both have moved on by as much, or one of them is false."""
    turn = np.eye(4)
    turn[:3, :3] = rotation_of(np.array([0, 0, turned]))
    match, later_match = at(2.0), at(4.0)
    drifted = turn @ at(80.0, 3.0)  # where odometry has what is really at the match
    query, later_query = drifted, drifted @ inverse(match) @ later_match
    first = constraints([(query, match, np.eye(4))])
    others = constraints([(later_query, later_match, np.eye(4)), (later_query, later_match, at(1.0))])
    squared = beside_each_other(first, others)
    assert squared[0] < 1e-6
    assert squared[1] > GATE
