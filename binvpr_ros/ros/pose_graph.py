# SPDX-License-Identifier: Apache-2.0
"""The node pose_graph: odometry and loop constraints in, map -> odom out. All that estimates is in slam/."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, TransformStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import Trigger

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # it has no wheel; every ROS installation has it
    TFMessage = None

from binvpr_ros.config import ConfigError, PoseGraphConfig
from binvpr_ros.counted import counted
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.loop_constraint import LoopConstraint
from binvpr_ros.maps.errors import first_line
from binvpr_ros.ros.constraints import read_loop_constraints
from binvpr_ros.ros.diagnostics import Level
from binvpr_ros.ros.messages import from_nanoseconds, to_nanoseconds
from binvpr_ros.ros.parameters import declared
from binvpr_ros.ros.program import run_node
from binvpr_ros.ros.transforms import matrix_of, message_of, pose_in, pose_of
from binvpr_ros.ros.voice import Voice
from binvpr_ros.slam.file import GraphFileError
from binvpr_ros.slam.graph import Fate, OdometryNoise, Placed, PoseGraph, Refused
from binvpr_ros.slam.odometry import Measurement, OdometryRuns, growth
from binvpr_ros.slam.poses import FORWARD_CAMERA, adjoints, carried, inverse, rotation_vectors, transform_of
from binvpr_ros.slam.poses import Transform as Matrix
from binvpr_ros.slam.trajectory import of_robot, write_g2o, write_tum

START_ERRORS = (ConfigError, GraphFileError, ParameterException)
EVERY_RESULT = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=50, reliability=ReliabilityPolicy.RELIABLE)
ODOMETRY = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=2000, reliability=ReliabilityPolicy.BEST_EFFORT)
LATEST_FOR_ALL = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
ALL_STATIC = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MOST_WAITING = 256
"""Keyframes, and constraints, that wait for odometry of their time."""
MOST_TOLD = 5
"""Latest closures that are refused, which diagnostics name."""
MANY = 10
"""Closures that are not used, from which on that is told."""
MOST_PATIENT = 20
"""Keyframes that wait without a warning."""
SHORTEST_INTERVAL = 0.05
"""Seconds between two transforms: tf2 interpolates."""
MOUNTING_SECONDS = 5.0
"""For which /tf_static may take to tell where the camera is."""
MOST_SHOWN = 5000
"""Poses in a path message; of more, every second one is left out, and so on."""
LATEST_UPDATES = 500
"""Of which the time is told."""
FARTHEST = 1e7
"""Metres from its origin beyond which odometry is taken to be broken."""
RETRY_SECONDS = 1.0
"""After which what could not be written is tried again: each try may wait for the disk."""


class PoseGraphNode(Node):
    """Subscribes to `odometry`, `keyframes` and `loop_constraints`; publishes map -> odom and the corrected path."""

    def __init__(self) -> None:
        super().__init__("pose_graph")
        self._config = declared(self, PoseGraphConfig)
        self._voice = Voice(self.get_logger())
        noise = OdometryNoise(self._config.odometry_drift, self._config.odometry_turn)
        self._graph = PoseGraph(Path(self._config.graph) if self._config.graph else None, noise)
        self._odometry = OdometryRuns()
        self._run = -1
        self._last_keyframe = -1  # stamp of the latest in the graph
        self._frame, self._base = "", ""
        self._newest: Measurement | None = None
        self._placed_before: Measurement | None = None  # odometry at the latest keyframe
        self._published = -NANOSECONDS  # stamp of the latest transform
        self._correction: Matrix = self._graph.correction
        self._keyframes: deque[Header] = deque(maxlen=MOST_WAITING)
        self._constraints: deque[LoopConstraint] = deque(maxlen=MOST_WAITING)
        self._counts: Counter[str] = Counter()
        self._updates: deque[float] = deque(maxlen=LATEST_UPDATES)
        self._failure = ""
        self._retry_at = 0.0  # by time.monotonic()
        self._path_changed = True
        numbers = self._config.mounting
        self._mounting = None if numbers is None else transform_of(numbers[:3], numbers[3:])
        self._statics: dict[str, tuple[str, Matrix]] = {}  # by child frame its parent, and its pose there
        self._waits_since: float | None = None

        self._transform = self.create_publisher(TransformStamped, "~/map_to_odom", 10)
        self._path = self.create_publisher(PathMessage, "~/path", LATEST_FOR_ALL)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._tf = None
        if TFMessage is not None:
            if self._config.publish_tf:
                self._tf = self.create_publisher(TFMessage, "/tf", 10)
            self.create_subscription(TFMessage, "/tf_static", self._on_static, ALL_STATIC)
        self.create_service(Trigger, "~/save", self._save)
        self.create_subscription(Odometry, "odometry", self._on_odometry, ODOMETRY)
        self.create_subscription(Header, "keyframes", self._on_keyframe, EVERY_RESULT)
        self.create_subscription(PointCloud2, "loop_constraints", self._on_constraints, EVERY_RESULT)
        for do in (self._publish_diagnostics, self._publish_path):
            self.create_timer(1.0, do, clock=Clock(clock_type=ClockType.STEADY_TIME))
        kept = (
            f"kept in {self._config.graph}" if self._config.graph else "kept in memory only, because graph is not set"
        )
        self.get_logger().info(
            f"ready: {counted(self._graph.size, 'keyframe')}, odometry from {self.resolve_topic_name('odometry')}, "
            f"constraints from {self.resolve_topic_name('loop_constraints')}; the graph is {kept}"
        )

    def close(self) -> None:
        """Close the graph's file."""
        self._graph.close()

    def _on_static(self, message: Any) -> None:
        for one in message.transforms:
            if (pose := matrix_of(one.transform)) is not None:
                self._statics[one.child_frame_id.lstrip("/")] = one.header.frame_id.lstrip("/"), pose

    def _on_odometry(self, message: Odometry) -> None:
        pose = message.pose.pose
        position = [pose.position.x, pose.position.y, pose.position.z]
        quaternion = [pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w]
        length = float(np.linalg.norm(quaternion))
        if not all(abs(number) <= FARTHEST for number in position) or not abs(length - 1) <= 0.1:
            self._counts["odometry_unusable"] += 1
            self._voice.warn(
                "odometry",
                f"odometry is ignored: its position is not within {FARTHEST:.0e} m of its origin, or its quaternion is "
                "not of length one; check its publisher",
            )
            return
        frame, before, frame_before = message.header.frame_id, self._newest, self._frame
        covariance = np.array(message.pose.covariance, np.float64).reshape(6, 6)
        measurement = self._odometry.add(
            to_nanoseconds(message.header.stamp), frame, transform_of(position, quaternion), covariance
        )
        if measurement is None:
            self._counts["odometry_late"] += 1
            return
        self._frame, self._base = frame, message.child_frame_id
        self._newest = measurement
        if measurement.run != self._run:
            if before is not None and frame != frame_before:
                self._voice.warn(
                    "frames",
                    f"odometry arrives in {frame_before!r} and in {frame!r}, and each change begins a new session; "
                    "remap odometry to the topic of one publisher",
                )
            elif before is not None:
                self._voice.warn("jump", "odometry jumped: a new session begins where the last one ended")
            self._begin(measurement, before)
        self._place()
        self._publish_transform()

    def _begin(self, measurement: Measurement, before: Measurement | None) -> None:
        """Begin a session: odometry has begun anew."""
        if before is not None:
            # Those at the end of the last run, which no odometry will reach.
            near = [
                one for one in self._keyframes if _nearer(to_nanoseconds(one.stamp), measurement.stamp, before.stamp)
            ]
            self._keyframes = deque(near, maxlen=MOST_WAITING)
        mounting = self._mounting if self._mounting is not None else FORWARD_CAMERA
        self._run, self._placed_before = measurement.run, None
        self._work(
            lambda: self._graph.begin(measurement.pose @ mounting, None if before is None else before.pose @ mounting)
        )

    def _on_keyframe(self, message: Header) -> None:
        self._counts["keyframes_received"] += 1
        self._keyframes.append(message)
        self._place()

    def _on_constraints(self, message: PointCloud2) -> None:
        try:
            self._constraints.extend(read_loop_constraints(message))
        except ValueError as error:
            self._counts["constraints_unusable"] += 1
            self._voice.warn("constraints", f"skipped a message: {error}")
            return
        self._place()

    def _place(self) -> None:
        """Add the keyframes whose odometry has come, and then the constraints between them."""
        if (mounting := self._camera()) is None:
            return
        if time.monotonic() < self._retry_at:
            return
        headers = list(self._keyframes)
        self._keyframes.clear()
        for number, header in enumerate(headers):
            stamp = to_nanoseconds(header.stamp)
            if not self._odometry.passed(stamp):
                self._keyframes.append(header)
            elif not self._add(stamp, mounting):
                self._keyframes.extend(headers[number:])
                return
        waiting = {to_nanoseconds(one.stamp) for one in self._keyframes}
        for _ in range(len(self._constraints)):
            constraint = self._constraints.popleft()
            query = constraint.query_stamp
            # The keyframe is announced before its constraints, but on another topic.
            if query in waiting or (not self._graph.knows(query) and query > self._last_keyframe):
                self._constraints.append(constraint)
            elif not self._constrain(constraint):
                self._constraints.appendleft(constraint)
                return

    def _add(self, stamp: int, mounting: Matrix) -> bool:
        """Add a keyframe; return False where it must be tried again, since the file could not be written."""
        at = self._odometry.at(stamp)
        if at is None or at.run != self._run:
            self._counts["keyframes_without_odometry"] += 1
            self._voice.warn(
                "keyframe",
                f"a keyframe at {stamp / NANOSECONDS:.3f} s is left out because there is no odometry near its time",
            )
            return True
        told = None if self._placed_before is None else growth(self._placed_before, at)
        if told is not None:  # of the robot's motion, and now of the camera's
            told = carried(told, adjoints(inverse(mounting)))
        added = self._work(lambda: self._graph.add(stamp, at.pose @ mounting, told))
        if added is False:
            self._counts["keyframes_late"] += 1
        elif added:
            self._last_keyframe = stamp
            self._placed_before = at
            self._path_changed = True
        return time.monotonic() >= self._retry_at

    def _constrain(self, constraint: LoopConstraint) -> bool:
        """Take a constraint; return False where it must be tried again, since the file could not be written."""
        fate = self._work(lambda: self._graph.constrain(constraint))
        self._path_changed = True
        if fate in (Fate.ODOMETRY, Fate.OTHERS):
            why = "odometry" if fate is Fate.ODOMETRY else "others"
            self._voice.warn(
                "refused",
                f"refused the closure of {constraint.query_stamp / NANOSECONDS:.3f} s with "
                f"{constraint.match_stamp / NANOSECONDS:.3f} s: it contradicts {why}",
            )
        return time.monotonic() >= self._retry_at

    def _work(self, do: Any) -> Any:
        """Return what a change of the graph returns; None where its file cannot be written, or it cannot be solved."""
        started = time.perf_counter()
        try:
            result = do()
            self._failure = ""
            self._correction = self._graph.correction
        except (RuntimeError, ValueError) as error:  # of the file; of GTSAM; of NumPy
            if isinstance(error, GraphFileError):
                self._retry_at = time.monotonic() + RETRY_SECONDS
            self._failure = first_line(error)
            self._voice.warn("failure", f"a change of the graph failed: {self._failure}")
            result = None
        self._updates.append((time.perf_counter() - started) * 1e3)
        return result

    def _camera(self) -> Matrix | None:
        """Return where the camera is in the robot's frame; None while /tf_static may still tell."""
        if self._mounting is None and self._keyframes:
            camera, base = self._keyframes[0].frame_id.lstrip("/"), self._base.lstrip("/")
            self._mounting = pose_in(self._statics, camera, base)
            if self._mounting is None:
                now = time.monotonic()
                if self._waits_since is None:
                    self._waits_since = now
                if TFMessage is not None and now - self._waits_since < MOUNTING_SECONDS:
                    return None
                self._mounting = FORWARD_CAMERA
                self.get_logger().warning(
                    f"/tf_static does not tell where {camera or 'the camera'} is in {base or 'the frame of odometry'}: "
                    "it is taken to look ahead from its origin; set camera_pose"
                )
        return self._mounting

    def _publish_transform(self) -> None:
        newest = self._newest
        if newest is None or 0 <= newest.stamp - self._published < SHORTEST_INTERVAL * NANOSECONDS:
            return
        self._published = newest.stamp
        header = Header(stamp=from_nanoseconds(newest.stamp), frame_id=self._config.map_frame)
        transform = TransformStamped(header=header, child_frame_id=self._frame, transform=message_of(self._correction))
        self._transform.publish(transform)
        if self._tf is not None:
            self._tf.publish(TFMessage(transforms=[transform]))

    def _publish_path(self) -> None:
        """Publish the present session's keyframes, corrected, where they have changed and somebody looks at them."""
        if not self._path_changed or not self._path.get_subscription_count():
            return
        self._path_changed = False
        placed = [one for one in self._robot_poses() if one.session == self._graph.session]
        placed = placed[:: max(1, -(-len(placed) // MOST_SHOWN))]
        poses = [
            PoseStamped(
                header=Header(stamp=from_nanoseconds(one.stamp), frame_id=self._config.map_frame),
                pose=pose_of(one.pose),
            )
            for one in placed
        ]
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._config.map_frame)
        self._path.publish(PathMessage(header=header, poses=poses))

    def _robot_poses(self) -> list[Placed]:
        back = inverse(self._mounting if self._mounting is not None else FORWARD_CAMERA)
        return [one._replace(pose=one.pose @ back) for one in self._graph.placed()]

    def _save(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        mounting = self._mounting if self._mounting is not None else FORWARD_CAMERA
        tum, g2o = (Path(self._config.trajectory + ending) for ending in (".tum", ".g2o"))
        try:
            self._graph.settle()
            placed = self._robot_poses()
            write_tum(tum, placed)
            steps, loops = self._graph.factors()
            write_g2o(g2o, placed, [of_robot(one, mounting) for one in (*steps, *loops)])
            present = sum(one.session == self._graph.session for one in placed)
            kept = f"{counted(len(placed), 'keyframe')} in {tum} and {g2o}, {present} of them of this session"
            response.success, response.message = True, kept
        except OSError as error:
            response.success = False
            response.message = (
                f"{tum} and {g2o} cannot be written ({error.strerror}); set trajectory to a path in a writable folder"
            )
        except (RuntimeError, ValueError) as error:
            response.success = False
            response.message = (
                f"the graph cannot be solved ({first_line(error)}); check the publishers of odometry and constraints"
            )
        self.get_logger().info(f"save: {response.message}")
        return response

    def _publish_diagnostics(self) -> None:
        counts, refused = self._graph.report()
        metres = float(np.linalg.norm(self._correction[:3, 3]))
        degrees = float(np.rad2deg(np.linalg.norm(rotation_vectors(self._correction))))
        values = {
            "keyframes": str(self._graph.size),
            "session": str(self._graph.session),
            "tied_to_map": str(self._graph.is_tied).lower(),
            **{f"constraints_{fate.value}": str(counts[fate]) for fate in Fate},
            "correction_m": f"{metres:.3f}",
            "correction_deg": f"{degrees:.2f}",
            "update_ms_median": f"{np.median(self._updates):.1f}" if self._updates else "",
            "update_ms_p95": f"{np.percentile(self._updates, 95):.1f}" if self._updates else "",
            "refused": "; ".join(sentence_of(one) for one in refused[-MOST_TOLD:]),
            "keyframes_waiting": str(len(self._keyframes)),
            **{name: str(count) for name, count in sorted(self._counts.items())},
        }
        level, text = self._health(counts)
        status = DiagnosticStatus(
            level=bytes([level]), name=f"{self.get_name()}: pose graph", message=text, hardware_id=self._frame,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )  # fmt: skip
        stamp = from_nanoseconds(self.get_clock().now().nanoseconds)
        self._diagnostics.publish(DiagnosticArray(header=Header(stamp=stamp), status=[status]))

    def _health(self, counts: Counter[Fate]) -> tuple[Level, str]:
        if self._failure:
            return Level.ERROR, self._failure
        for topic, missing in (
            ("odometry", self._newest is None),
            ("keyframes", not self._counts["keyframes_received"]),
        ):
            if missing:
                return Level.WARN, f"nothing has arrived on {self.resolve_topic_name(topic)} yet"
        if len(self._keyframes) > MOST_PATIENT:
            return Level.WARN, (
                f"{len(self._keyframes)} keyframes wait for odometry; check that camera and odometry use the same clock"
            )
        if doubt := doubt_of(counts):
            return Level.WARN, doubt
        closures = counted(counts[Fate.USED], "closure")
        if not self._graph.is_tied:
            return Level.OK, f"{closures}; this session's place in the map is not known yet"
        return Level.OK, f"{counted(self._graph.size, 'keyframe')}, {closures}"


def doubt_of(counts: Counter[Fate]) -> str:
    """Return why so few closures are used, and what to do; "" where that is as usual."""
    used, unknown, off = (counts[fate] for fate in (Fate.USED, Fate.UNKNOWN, Fate.ODOMETRY))
    if unknown >= MANY and unknown > used:
        return (
            f"{unknown} closures are with keyframes that this graph does not have; keep a graph file with the map from "
            "its first drive on (graph), or begin a new map"
        )
    if off >= MANY and off > used:
        return f"{off} closures contradict odometry; if they are right, raise odometry_drift and odometry_turn"
    return ""


def sentence_of(refused: Refused) -> str:
    """Return which closure is refused, and which others it contradicts, by the ids of their keyframes."""
    closure = f"{refused.constraint.query_id} to {refused.constraint.match_id}"
    if refused.fate is Fate.ODOMETRY:
        return f"{closure} contradicts odometry"
    if refused.fate is Fate.GRAPH:
        return f"{closure} contradicts all others together"
    others = [f"{one.query_id} to {one.match_id}" for one in refused.against]
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f"{closure} contradicts {', '.join(others[:3])}{more}"


def _nearer(stamp: int, one: int, other: int) -> bool:
    return abs(stamp - one) < abs(stamp - other)


def main() -> int:
    """Run the node until it is told to stop; the exit status is 1 where it cannot start."""
    parser = argparse.ArgumentParser(
        prog="pose_graph",
        description="Close loops: correct the drift of odometry, and publish map -> odom.",
        usage="%(prog)s [--help] [--ros-args -r odometry:=TOPIC -p PARAMETER:=VALUE --params-file FILE ...]",
        epilog="config/pose_graph.yaml describes the parameters, docs/loop_closing.md the topics.",
    )
    return run_node(PoseGraphNode, "pose_graph", parser, START_ERRORS)


if __name__ == "__main__":
    sys.exit(main())
