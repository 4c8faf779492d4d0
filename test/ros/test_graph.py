# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from binvpr_ros.keyframes import NANOSECONDS, Keyframe
from binvpr_ros.ros.graph import Drawing, Graph

BITS = np.zeros(1, np.uint64)
AHEAD = (0.0, 0.0, 0.0, 1.0)
NAN = float("nan")


def keyframe(number: int, second: float, session: int = 0) -> Keyframe:
    return Keyframe(number, session, round(second * NANOSECONDS), BITS)


def drive(graph: Graph, start: float, stop: float, y: float = 0.0, frame: str = "odom", interval: float = 0.5) -> None:
    """Drive along x at one metre a second, with odometry every `interval` seconds."""
    for second in np.arange(start, stop + interval / 2, interval):
        graph.add_odometry(round(second * NANOSECONDS), frame, (float(second), y, 0.0), AHEAD)


def drawn(graph: Graph) -> Drawing:
    drawing = graph.changes()
    assert drawing is not None
    return drawing


def test_keyframes_stand_between_the_odometry_before_and_after() -> None:
    graph = Graph()
    drive(graph, 0, 10)
    graph.add(keyframe(0, 1.25), [])
    graph.add(keyframe(1, 3.5), [])
    graph.add(keyframe(2, 9.9), [keyframe(0, 1.25), keyframe(1, 3.5)])
    frame, routes, closures = drawn(graph)
    assert frame == "odom"
    np.testing.assert_allclose(routes[0], [(1.25, 0, 0), (3.5, 0, 0), (9.9, 0, 0)])
    np.testing.assert_allclose(closures, [[(9.9, 0, 0), (1.25, 0, 0)], [(9.9, 0, 0), (3.5, 0, 0)]])
    assert graph.changes() is None


def test_a_keyframe_waits_for_its_odometry() -> None:
    graph = Graph()
    drive(graph, 0, 1)
    graph.add(keyframe(0, 1.2), [])
    assert graph.changes() is None
    drive(graph, 1.5, 1.5)
    assert drawn(graph).routes == {0: [pytest.approx((1.2, 0, 0))]}


def test_keyframes_without_odometry_are_left_out_and_so_are_their_closures() -> None:
    graph = Graph()
    graph.add(keyframe(0, 1), [])
    drive(graph, 5, 10)
    graph.add(keyframe(1, 4), [])
    graph.add(keyframe(2, 7), [keyframe(0, 1)])
    drive(graph, 20, 30)
    graph.add(keyframe(3, 15), [])  # the odometry had a gap
    graph.add(keyframe(4, 20), [keyframe(3, 15)])
    _, routes, closures = drawn(graph)
    assert routes == {0: [(7, 0, 0), (20, 0, 0)]}
    assert closures == []


def test_a_bag_that_starts_again_is_a_route_of_its_own_with_closures_to_the_first() -> None:
    graph = Graph()
    drive(graph, 0, 10)
    graph.add(keyframe(0, 2), [])
    graph.add(keyframe(1, 10.2), [])  # the bag ends before there is odometry for it
    drive(graph, 0, 12, y=1.0)
    graph.add(keyframe(2, 3, session=1), [keyframe(0, 2)])
    _, routes, closures = drawn(graph)
    assert routes == {0: [(2, 0, 0)], 1: [(3, 1, 0)]}
    assert closures == [((3, 1, 0), (2, 0, 0))]


def test_a_reset_shows_nothing_of_what_was_before() -> None:
    graph = Graph()
    drive(graph, 0, 10)
    graph.add(keyframe(0, 2), [])
    assert drawn(graph).routes
    graph.begin(1)
    assert drawn(graph) == ("odom", {}, [])
    graph.add(keyframe(1, 3), [])  # was in work meanwhile
    drive(graph, 11, 12)
    graph.add(keyframe(2, 11.5, session=1), [])
    assert drawn(graph).routes == {1: [(11.5, 0, 0)]}


def test_another_frame_begins_anew() -> None:
    graph = Graph()
    drive(graph, 0, 10)
    graph.add(keyframe(0, 2), [])
    drive(graph, 11, 12, frame="map")
    graph.add(keyframe(1, 11), [keyframe(0, 2)])
    assert drawn(graph) == ("map", {0: [(11, 0, 0)]}, [])


@pytest.mark.parametrize(
    ("position", "orientation"),
    [
        ((NAN, 0.0, 0.0), AHEAD),
        ((0.0, 0.0, float("inf")), AHEAD),
        ((0.0, 0.0, 0.0), (0.0, 0.0, NAN, 1.0)),
        ((0.0, NAN, 0.0), (0.0, 0.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)),
    ],
)
@pytest.mark.parametrize(("stamp", "frame"), [(1, "odom"), (0, "odom"), (5, "odom"), (0, "")])
def test_odometry_that_is_no_pose_is_left_out(
    position: tuple[float, float, float], orientation: tuple[float, float, float, float], stamp: int, frame: str
) -> None:
    graph = Graph()
    graph.add_odometry(0, "odom", (4.0, 0.0, 0.0), AHEAD)
    graph.add_odometry(stamp * NANOSECONDS, frame, position, orientation)
    graph.add_odometry(2 * NANOSECONDS, "odom", (6.0, 0.0, 0.0), AHEAD)
    graph.add(keyframe(0, 1), [])
    assert drawn(graph) == ("odom", {0: [(5, 0, 0)]}, [])


def test_the_origin_is_a_pose() -> None:
    graph = Graph()
    graph.add_odometry(NANOSECONDS, "odom", (0.0, 0.0, 0.0), AHEAD)
    graph.add(keyframe(0, 1), [])
    assert drawn(graph).routes == {0: [(0, 0, 0)]}


def test_positions_without_an_orientation_are_used() -> None:
    graph = Graph()
    for second in (1, 2):
        graph.add_odometry(second * NANOSECONDS, "odom", (0.0, float(second), 0.0), (0.0, 0.0, 0.0, 0.0))
    graph.add(keyframe(0, 1.5), [])
    assert drawn(graph).routes == {0: [(0, 1.5, 0)]}


@pytest.mark.parametrize("late", [[9.9], [0.0], [9.2, 9.4, 9.6], [3.0, 1.0, 5.0, 5.5], [10.0], [10.0, 10.0]])
def test_odometry_that_is_late_or_repeated_costs_only_itself(late: list[float]) -> None:
    graph = Graph()
    drive(graph, 0, 10)
    graph.add(keyframe(0, 10.25), [])
    for second in late:
        drive(graph, second, second, y=9.0)
    graph.add(keyframe(1, 8.25), [])
    drive(graph, 10.5, 12)
    graph.add(keyframe(2, 11), [])
    assert drawn(graph).routes == {0: [(10.25, 0, 0), (8.25, 0, 0), (11, 0, 0)]}


@pytest.mark.parametrize("late", [5.0, 9.9, 10.0])
def test_keyframes_do_not_wait_for_more_after_odometry_that_is_late(late: float) -> None:
    graph = Graph()
    drive(graph, 0, 10)
    drive(graph, late, late, y=9.0)
    graph.add(keyframe(0, 5.25), [])
    assert drawn(graph).routes == {0: [(5.25, 0, 0)]}


@pytest.mark.parametrize("start", [0.0, 8.0])
def test_a_keyframe_at_the_start_of_a_bag_that_starts_again_is_placed_by_the_new_odometry(start: float) -> None:
    graph = Graph()
    drive(graph, 0, 10)
    graph.add(keyframe(0, 10.2), [])
    drive(graph, start, start + 0.5, y=1.0)
    graph.add(keyframe(1, start + 0.25, session=1), [])
    assert graph.changes() is None
    drive(graph, start + 0.5, start + 4, y=1.0)
    assert drawn(graph).routes == {1: [(start + 0.25, 1, 0)]}


def test_a_bag_that_starts_again_twice() -> None:
    graph = Graph()
    drive(graph, 0, 10)
    drive(graph, 1, 1.5, y=1.0)
    drive(graph, 0, 5, y=2.0)
    graph.add(keyframe(0, 2), [])
    assert drawn(graph).routes == {0: [(2, 2, 0)]}


@pytest.mark.parametrize("stop", [0.0, 100.0])
@pytest.mark.parametrize("interval", [0.005, 1.0, 2.5])
def test_a_bag_that_starts_again_is_noticed_at_any_rate_of_odometry(stop: float, interval: float) -> None:
    graph = Graph()
    drive(graph, 50, 50 + stop, interval=2.5)
    drive(graph, 0, 10, y=1.0, interval=interval)
    graph.add(keyframe(0, 5), [])
    assert drawn(graph).routes == {0: [pytest.approx((5, 1, 0))]}


def test_of_a_long_drive_the_latest_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("binvpr_ros.ros.graph.MOST_KEYFRAMES", 3)
    graph = Graph()
    drive(graph, 0, 10)
    for number in range(5):
        graph.add(keyframe(number, number), [keyframe(0, 0)] if number == 4 else [])
    _, routes, closures = drawn(graph)
    assert routes == {0: [(2, 0, 0), (3, 0, 0), (4, 0, 0)]}
    assert closures == []
