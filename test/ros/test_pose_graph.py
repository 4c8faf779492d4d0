# SPDX-License-Identifier: Apache-2.0
"""The node pose_graph as a process, over DDS: by itself, and together with the node on a drive."""

from __future__ import annotations

import itertools
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("gtsam", reason="the extra slam is not installed")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.executors import SingleThreadedExecutor
from robot import Robot
from sensor_msgs.msg import Image, PointCloud2
from slam.worlds import Route, closed, constraint, laps
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.loop_constraint import LoopConstraint
from binvpr_ros.recordings.world import World, drive
from binvpr_ros.ros.closures import read_loop_closures
from binvpr_ros.ros.messages import from_nanoseconds, message_from_array, message_from_constraints, to_nanoseconds
from binvpr_ros.ros.node import EVERY_RESULT
from binvpr_ros.ros.pose_graph import doubt_of
from binvpr_ros.ros.transforms import matrix_of, pose_of
from binvpr_ros.slam.graph import Fate
from binvpr_ros.slam.poses import Transform, inverse, transform_of

pytestmark = pytest.mark.usefixtures("ros")
MOUNTING = "0.1 0 0.3 -0.5 0.5 -0.5 0.5"
CAMERA = transform_of([0.1, 0, 0.3], [-0.5, 0.5, -0.5, 0.5])


class Graph:
    """The node pose_graph as a process, and what surrounds it."""

    def __init__(self, folder: Path, *parameters: str) -> None:
        self.log = folder / "pose_graph.log"
        self.trajectory = folder / "route"
        settings = [f"trajectory:={self.trajectory}", f"camera_pose:={MOUNTING!r}", *parameters]
        command = [sys.executable, "-m", "binvpr_ros.ros.pose_graph", "--ros-args"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, *(word for one in settings for word in ("-p", one))], stdout=log, stderr=log
            )
        self.node = rclpy.create_node("surroundings")
        self.transforms: list[TransformStamped] = []
        self.paths: list[PathMessage] = []
        self.diagnostics: dict[str, str] = {}
        self.message = ""
        self.node.create_subscription(TransformStamped, "pose_graph/map_to_odom", self.transforms.append, 10)
        self.node.create_subscription(PathMessage, "pose_graph/path", self.paths.append, 10)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.odometry = self.node.create_publisher(Odometry, "odometry", 50)
        self.keyframes = self.node.create_publisher(Header, "keyframes", EVERY_RESULT)
        self.constraints = self.node.create_publisher(PointCloud2, "loop_constraints", EVERY_RESULT)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        publishers = self.odometry, self.keyframes, self.constraints
        self.wait(lambda: all(one.get_subscription_count() for one in publishers), "it subscribes")

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "pose_graph: pose graph":
                self.diagnostics = {value.key: value.value for value in status.values}
                self.message = status.message

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (
                f"waited in vain until {what}: {self.diagnostics}\n{self.log.read_text()}"
            )
            assert self.process.poll() is None, f"it died: {self.log.read_text()}"
            self._executor.spin_once(timeout_sec=0.05)

    def send_odometry(self, stamp: int, pose: Transform, frame: str = "odom") -> None:
        """Publish the odometry [4,4] of the robot."""
        message = Odometry(header=Header(stamp=from_nanoseconds(stamp), frame_id=frame), child_frame_id="base_link")
        message.pose.pose = pose_of(pose)
        self.odometry.publish(message)

    def deliver_odometry(self, stamp: int, pose: Transform) -> None:
        """Publish it until it has come, as the transform of its stamp says: it may be lost on its way."""
        if self.transforms and to_nanoseconds(self.transforms[-1].header.stamp) == stamp:
            return
        for _ in range(50):
            self.send_odometry(stamp, pose)
            deadline = time.monotonic() + 0.5
            while time.monotonic() < deadline:
                self._executor.spin_once(timeout_sec=0.05)
                if self.transforms and to_nanoseconds(self.transforms[-1].header.stamp) == stamp:
                    return
        raise AssertionError(f"odometry never came: {self.log.read_text()}")

    def drive(self, route: Route, constraints: list[LoopConstraint]) -> None:
        """Drive a camera along a route, as fast as the node follows."""
        by_stamp: dict[int, list[LoopConstraint]] = {}
        for one in constraints:
            by_stamp.setdefault(one.query_stamp, []).append(one)
        for stamp, pose in zip(route.stamps.tolist(), route.odometry, strict=True):
            self.deliver_odometry(stamp, pose @ inverse(CAMERA))
            self.keyframes.publish(Header(stamp=from_nanoseconds(stamp), frame_id="camera"))
            if stamp in by_stamp:
                header = Header(stamp=from_nanoseconds(stamp), frame_id="camera")
                self.constraints.publish(message_from_constraints(header, by_stamp[stamp]))

    def wait_for(self, **counts: int | str) -> None:
        """Wait until the diagnostics say so."""
        self.wait(
            lambda: all(self.diagnostics.get(name) == str(count) for name, count in counts.items()), f"{counts}", 60.0
        )

    def save(self) -> Any:
        client = self.node.create_client(Trigger, "pose_graph/save")
        future = client.call_async(Trigger.Request())
        self.wait(future.done, "it saves")
        return future.result()

    def correction(self) -> Transform:
        """Return the latest map -> odom."""
        matrix = matrix_of(self.transforms[-1].transform)
        assert matrix is not None
        return matrix

    def close(self, with_signal: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(with_signal)
        status = self.process.wait(20)
        self._executor.shutdown()
        self.node.destroy_node()
        return status


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    graph = Graph(tmp_path, f"graph:={tmp_path / 'graph.db'}")
    yield graph
    if graph.process.poll() is None:
        assert graph.close() == 0, graph.log.read_text()


def position(pose: Transform) -> NDArray[np.float64]:
    return np.asarray(pose[:3, 3])


def test_it_takes_the_drift_out_of_odometry(graph: Graph) -> None:
    route = laps()
    graph.drive(route, closed(route))
    graph.wait_for(keyframes=len(route.stamps), constraints_used=len(closed(route)), keyframes_waiting=0)
    graph.wait(lambda: len(graph.paths) > 0 and len(graph.paths[-1].poses) == len(route.stamps), "the path is whole")
    transform = graph.transforms[-1]
    assert (transform.header.frame_id, transform.child_frame_id) == ("map", "odom")
    graph.send_odometry(int(route.stamps[-1]) + NANOSECONDS, route.odometry[-1] @ inverse(CAMERA))
    graph.wait(lambda: graph.transforms[-1] is not transform, "the transform follows odometry")
    corrected = graph.correction() @ route.odometry[-1]
    off = np.linalg.norm(position(corrected) - position(route.truth[-1]))
    assert off < np.linalg.norm(position(route.odometry[-1]) - position(route.truth[-1])) / 3
    last = graph.paths[-1].poses[-1].pose.position
    np.testing.assert_allclose([last.x, last.y, last.z], position(corrected @ inverse(CAMERA)), atol=0.05)


def test_its_files_are_written_and_read_by_evo(graph: Graph) -> None:
    sync = pytest.importorskip("evo.core.sync", reason="evo is not installed")
    from evo.core.metrics import APE, PoseRelation, StatisticsType
    from evo.core.trajectory import PoseTrajectory3D
    from evo.tools.file_interface import read_tum_trajectory_file

    route = laps()
    graph.drive(route, closed(route))
    graph.wait_for(keyframes=len(route.stamps), constraints_used=len(closed(route)))
    answer = graph.save()
    assert answer.success, answer.message
    assert graph.trajectory.with_suffix(".g2o").read_text().count("EDGE_SE3:QUAT") == len(route.stamps) - 1 + 40

    def error(trajectory: PoseTrajectory3D) -> float:
        robot = [pose @ inverse(CAMERA) for pose in route.truth]
        truth, other = sync.associate_trajectories(
            PoseTrajectory3D(poses_se3=robot, timestamps=route.stamps / NANOSECONDS), trajectory, max_diff=0.01
        )
        other.align(truth)
        metric = APE(PoseRelation.translation_part)
        metric.process_data((truth, other))
        return float(metric.get_statistic(StatisticsType.rmse))

    robot = [pose @ inverse(CAMERA) for pose in route.odometry]
    before = error(PoseTrajectory3D(poses_se3=robot, timestamps=route.stamps / NANOSECONDS))
    assert error(read_tum_trajectory_file(str(graph.trajectory.with_suffix(".tum")))) < before / 4


def test_nothing_that_it_receives_ends_it(graph: Graph) -> None:
    route, rng = laps(1), np.random.default_rng(0)
    one = constraint(route, 79, 60, rng)
    graph.deliver_odometry(int(route.stamps[0]), route.odometry[0] @ inverse(CAMERA))
    for pose in (np.full((4, 4), np.nan), np.zeros((4, 4))):
        message = Odometry(header=Header(frame_id="odom"))
        message.pose.pose.position.x = float(pose[0, 0])
        message.pose.pose.orientation.w = 0.0
        graph.odometry.publish(message)
    graph.constraints.publish(PointCloud2())
    spoilt = message_from_constraints(Header(), [one])
    spoilt.data = spoilt.data[:100]
    graph.constraints.publish(spoilt)
    graph.keyframes.publish(Header(stamp=from_nanoseconds(10**6 * NANOSECONDS)))  # that no odometry ever reaches
    graph.constraints.publish(message_from_constraints(Header(), [one]))  # before its keyframe
    graph.drive(route, [])
    graph.wait_for(keyframes=len(route.stamps), odometry_unusable=2, constraints_unusable=2, constraints_used=1)
    late = Header(stamp=from_nanoseconds(int(route.stamps[3]) + 1))
    graph.keyframes.publish(late)
    graph.constraints.publish(message_from_constraints(Header(), [constraint(route, 79, 61, rng)]))
    graph.wait_for(keyframes_late=1, keyframes_waiting=1, constraints_used=2)
    assert "Traceback" not in graph.log.read_text()


def test_odometry_before_the_camera_may_end_and_begin_anew(graph: Graph, tmp_path: Path) -> None:
    route = laps(1)
    graph.deliver_odometry(1, inverse(CAMERA))
    assert graph.save().success
    graph.close(signal.SIGKILL)
    second = Graph(tmp_path, f"graph:={tmp_path / 'graph.db'}")
    second.drive(route, [])
    second.wait_for(keyframes=len(route.stamps), session=0, tied_to_map="true")
    assert second.save().success
    assert second.close() == 0


def test_numbers_that_nobody_measured_are_left_out(graph: Graph, tmp_path: Path) -> None:
    route, rng = laps(1), np.random.default_rng(0)
    graph.drive(route, [])
    graph.wait_for(keyframes=len(route.stamps))
    far = inverse(CAMERA)
    far[0, 3] = 1.7e308
    graph.send_odometry(int(route.stamps[-1]) + 1, far)
    for changes in (
        {"covariance": np.diag([1e-3] * 5 + [1e16])},
        {"translation": np.array([1e6, 0, 0]), "covariance": 1e12 * np.eye(6)},
        {"covariance": np.zeros((6, 6))},
    ):
        one = constraint(route, 79, 78, rng, **changes)
        graph.constraints.publish(message_from_constraints(Header(), [one]))
    far_and_vague = constraint(route, 79, 70, rng, translation=np.array([1e5, 0, 0]), covariance=1e8 * np.eye(6))
    graph.constraints.publish(message_from_constraints(Header(), [far_and_vague]))
    graph.wait_for(odometry_unusable=1, constraints_unusable=2)
    assert graph.save().success
    graph.close(signal.SIGKILL)
    second = Graph(tmp_path, f"graph:={tmp_path / 'graph.db'}")
    second.wait_for(keyframes=len(route.stamps))
    assert second.close() == 0
    assert "Traceback" not in graph.log.read_text()


def test_what_a_full_disk_refuses_is_written_later(graph: Graph, tmp_path: Path) -> None:
    """No file of the process may grow, as on a full disk, until there is space again."""
    route = laps(1)
    _, hard = resource.prlimit(graph.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(graph.process.pid, resource.RLIMIT_FSIZE, (4096, hard))
    graph.drive(route, [])
    graph.wait(lambda: "cannot be written" in graph.message, "it says so")
    resource.prlimit(graph.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    time.sleep(1.2)
    graph.send_odometry(int(route.stamps[-1]) + NANOSECONDS // 10, route.odometry[-1] @ inverse(CAMERA))
    graph.wait_for(keyframes=len(route.stamps), keyframes_waiting=0, session=0)
    graph.close(signal.SIGKILL)
    second = Graph(tmp_path, f"graph:={tmp_path / 'graph.db'}")
    second.wait_for(keyframes=len(route.stamps))
    assert second.close() == 0


def test_two_publishers_of_odometry_are_named_now_and_then(graph: Graph) -> None:
    numbers = itertools.count()

    def told(times: int = 1) -> bool:
        number = next(numbers)
        graph.send_odometry((1 + number) * NANOSECONDS // 100, inverse(CAMERA), ("odom", "wheels")[number % 2])
        return graph.log.read_text().count("remap odometry to the topic of one publisher") >= times

    graph.wait(told, "it warns")
    for _ in range(20):
        graph.wait(lambda: told(0), "")
    log = graph.log.read_text()
    assert "'odom'" in log
    assert "'wheels'" in log
    assert log.count("remap odometry") + log.count("odometry jumped") <= 2


def test_odometry_that_jumps_begins_a_session_where_the_last_one_ended(graph: Graph) -> None:
    route = laps(1)
    graph.drive(route, [])
    graph.wait_for(keyframes=len(route.stamps))
    before = graph.correction() @ route.odometry[-1]
    anew = laps(1, start=1000)
    graph.drive(anew, [])
    graph.wait_for(keyframes=2 * len(route.stamps), session=1)
    assert graph.diagnostics["tied_to_map"] == "false"
    np.testing.assert_allclose(graph.correction() @ anew.odometry[0], before, atol=1e-3)
    rng = np.random.default_rng(0)
    ties = [constraint(anew, query, query, rng, route) for query in (78, 79)]
    graph.constraints.publish(message_from_constraints(Header(), ties))
    graph.wait_for(constraints_used=2)
    assert graph.diagnostics["tied_to_map"] == "true"


def test_it_goes_on_after_it_was_killed(graph: Graph, tmp_path: Path) -> None:
    route = laps(1)
    graph.drive(route, [])
    graph.wait_for(keyframes=len(route.stamps))
    graph.close(signal.SIGKILL)
    second = Graph(tmp_path, f"graph:={tmp_path / 'graph.db'}")
    anew = laps(1, start=1000)
    rng = np.random.default_rng(0)
    second.drive(anew, [constraint(anew, query, query, rng, route) for query in (30, 33)])
    second.wait_for(keyframes=2 * len(route.stamps), session=1, constraints_used=2)
    assert second.diagnostics["tied_to_map"] == "true"
    assert second.close() == 0


@pytest.mark.parametrize(
    ("parameter", "sentence"),
    [
        ("odometry_drift:=7.0", "cannot start"),
        ("camera_pose:=ahead", "cannot start: camera_pose must be 'x y z qx qy qz qw'"),
        ("graph:=/nowhere/graph.db", "cannot start: /nowhere/graph.db cannot be opened"),
    ],
)
def test_what_it_cannot_start_with_is_said(parameter: str, sentence: str) -> None:
    command = [sys.executable, "-m", "binvpr_ros.ros.pose_graph", "--ros-args", "-p", parameter]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert sentence in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_the_transform_is_on_tf(graph: Graph) -> None:
    messages = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs has no wheel; it comes with ROS from apt")
    received: list[Any] = []
    graph.node.create_subscription(messages.TFMessage, "/tf", received.append, 10)
    graph.drive(laps(1), [])
    graph.wait(lambda: bool(received), "a transform comes on /tf")
    assert received[0].transforms[0].header.frame_id == "map"


IMAGES = 240


def show(robot: Robot, image: Image, stamp: int) -> None:
    """Show an image until it is a keyframe: images are best effort, and one may be lost."""
    for _ in range(5):
        robot.send(image, stamp)
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            if robot.newest_keyframe() == stamp:
                return
            time.sleep(0.01)
    pytest.fail(robot.log.read_text())


@pytest.mark.long
@pytest.mark.timeout(600)
def test_both_nodes_close_the_loops_of_a_drive(graph: Graph, tmp_path: Path) -> None:
    """A drive through the rendered building: the node finds the closures, pose_graph takes the drift out.

    The relative poses of the closures are the true ones.
    """
    world, truth, odometry = World(), [], []
    stops = list(drive(IMAGES))
    for number, (pose, _, _) in enumerate(stops):
        # The building's y axis points to the right of its x axis, as seen from above.
        place = transform_of([pose.x, -pose.y, 0], [0, 0, -np.sin(pose.heading / 2), np.cos(pose.heading / 2)])
        truth.append(place)
        if number == 0:
            odometry.append(place)
            continue
        step = inverse(truth[-2]) @ truth[-1]
        way = float(np.linalg.norm(step[:3, 3]))
        half = np.deg2rad(0.5) * way / 2
        odometry.append(odometry[-1] @ step @ transform_of([0.02 * way, 0, 0], [0, 0, np.sin(half), np.cos(half)]))
    stamps = [(100 + number) * NANOSECONDS for number in range(IMAGES)]
    index_of = {stamp: number for number, stamp in enumerate(stamps)}
    robot = Robot(tmp_path)
    rng = np.random.default_rng(0)
    route = Route(np.array(stamps), np.stack([pose @ CAMERA for pose in truth]), np.stack(odometry) @ CAMERA)
    told = 0
    for number, stop in enumerate(stops):
        graph.send_odometry(stamps[number], odometry[number])
        show(robot, message_from_array(world.render(*stop), "rgb8"), stamps[number])
        for message in robot.listener.closures[told:]:
            pairs = [(index_of[row.query_stamp], index_of[row.match_stamp]) for row in read_loop_closures(message)]
            constraints = [constraint(route, *pair, rng) for pair in pairs]
            graph.constraints.publish(message_from_constraints(message.header, constraints))
        told = len(robot.listener.closures)
        graph.wait(lambda: True, "")
    assert told, "the node closed no loop"
    # The first may be published before the two nodes have found each other.
    least = len(robot.listener.keyframes) - 5
    graph.wait(lambda: int(graph.diagnostics.get("keyframes", 0)) >= least, "the keyframes have come", 60.0)
    assert int(graph.diagnostics["constraints_used"]) >= 0.9 * told
    assert graph.save().success
    lines = [list(map(float, line.split())) for line in graph.trajectory.with_suffix(".tum").read_text().splitlines()]
    indices = [index_of[round(line[0]) * NANOSECONDS] for line in lines]
    true = np.stack([position(truth[index]) for index in indices])
    before = np.stack([position(odometry[index]) for index in indices])
    after = np.array(lines)[:, 1:4]
    errors = [float(np.sqrt(np.mean(np.sum((some - true) ** 2, axis=1)))) for some in (before, after)]
    assert errors[1] < errors[0] / 2, errors
    robot.close()


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({Fate.USED: 20, Fate.UNKNOWN: 19, Fate.ODOMETRY: 19}, ""),
        ({Fate.UNKNOWN: 9, Fate.ODOMETRY: 9}, ""),
        (
            {Fate.USED: 9, Fate.UNKNOWN: 61},
            "61 closures are with keyframes that this graph does not have; keep a graph",
        ),
        ({Fate.USED: 1, Fate.ODOMETRY: 21}, "21 closures contradict odometry; if they are right, raise odometry_drift"),
    ],
)
def test_where_most_closures_are_not_used_that_is_said_with_what_to_do(counts: dict[Fate, int], said: str) -> None:
    assert doubt_of(Counter(counts)).startswith(said)
    assert bool(doubt_of(Counter(counts))) == bool(said)
