# SPDX-License-Identifier: Apache-2.0
"""The ROS face: parameters, topics, services, diagnostics, log. All that recognises is in recognizer.py."""

from __future__ import annotations

import argparse
import copy
import functools
import math
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

from binvpr_ros.config import Config, ConfigError
from binvpr_ros.counted import counted
from binvpr_ros.images import ImageError, Stretch
from binvpr_ros.installation import how_to_install_module
from binvpr_ros.keyframes import NANOSECONDS, Keyframe
from binvpr_ros.local_features.depth import DepthImage
from binvpr_ros.loop_closure import Verdict
from binvpr_ros.maps.database import DatabaseError
from binvpr_ros.network.backends import DescriptorError
from binvpr_ros.network.model_card import ModelCardError
from binvpr_ros.pictures import picture_of
from binvpr_ros.recognizer import PlaceRecognizer, Recognition
from binvpr_ros.ros.calibration import CalibrationSubscriber, calibration_in
from binvpr_ros.ros.diagnostics import Health, Level, Silence, Statistics, free_bytes, health, is_silent
from binvpr_ros.ros.graph import Graph
from binvpr_ros.ros.messages import (
    CameraInfoError,
    camera_from_info,
    decode,
    depth_from_message,
    from_nanoseconds,
    message_from_array,
    message_from_closures,
    message_from_constraints,
    message_from_drawing,
    message_from_matches,
    to_nanoseconds,
)
from binvpr_ros.ros.parameters import declared
from binvpr_ros.ros.program import run_node
from binvpr_ros.ros.recent_depths import RecentDepths
from binvpr_ros.ros.recent_images import MOST_BYTES, Answer, RecentImages
from binvpr_ros.ros.silence import why_nothing_comes
from binvpr_ros.ros.voice import Voice
from binvpr_ros.stamps import StampError

if TYPE_CHECKING:
    from binvpr_ros.ros.fleet_topics import FleetTopics

START_ERRORS = (ConfigError, DatabaseError, DescriptorError, ModelCardError, ParameterException)
NEWEST_IMAGE = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
NEWEST_IMAGES = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
EVERY_RESULT = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=50, reliability=ReliabilityPolicy.RELIABLE)
ODOMETRY = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
LATEST_FOR_ALL = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MOST_LOST_AT_ONCE = 10_000
MOST_WAITING_CLOSURES = 50
"""Keyframes with closures whose poses wait to be computed; more have none."""
MOST_PICTURES = 8
"""Matches that wait to be drawn; more are not shown."""
UNCALIBRATED = "loops are verified without correcting lens distortion"
CALIBRATION_SECONDS = 10
"""After which a calibration that has not come yet is said to be missing."""
MOST_CALIBRATIONS = 8
"""Latest calibrations that are remembered, to notice that several take turns."""


class BinvprNode(Node):
    """Subscribes to `image`, `camera_info`, `depth` and `odometry`; publishes `loop_closures` and `keyframes`.

    With `camera_info` it publishes `loop_constraints` too, and with the parameter `fleet` `fleet_closures`. It
    reports on /diagnostics. What it shows to people, `~/match_image` and, with `odometry`, `~/graph`, and the pixels of
    `~/matches`, is made while somebody subscribes.
    """

    def __init__(self) -> None:
        super().__init__("binvpr")
        self._recognizer = PlaceRecognizer(declared(self, Config))
        config = self._recognizer.config
        self.add_on_set_parameters_callback(self._on_parameters)
        self._statistics = Statistics()
        self._stretch = Stretch() if config.stretch_16_bit else None
        self._voice = Voice(self.get_logger())

        self._closures = self.create_publisher(PointCloud2, "loop_closures", EVERY_RESULT)
        self._keyframes = self.create_publisher(Header, "keyframes", EVERY_RESULT)
        self._constraints = self.create_publisher(PointCloud2, "loop_constraints", EVERY_RESULT)
        self._matches = self.create_publisher(PointCloud2, "~/matches", EVERY_RESULT)
        self._match_image = self.create_publisher(Image, "~/match_image", 1)
        self._graph = Graph()
        self._graph_markers = self.create_publisher(MarkerArray, "~/graph", LATEST_FOR_ALL)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        for name, action in (
            ("save_database", self._recognizer.save),
            ("reset_database", self._reset),
            ("reload_database", self._recognizer.reload),
        ):
            self.create_service(Trigger, f"~/{name}", self._service(name, action))
        # Wall time: diagnostics go on when simulated time stands still.
        for do in (self._publish_diagnostics, self._publish_graph, self._look_for_calibration):
            self.create_timer(1.0, do, clock=Clock(clock_type=ClockType.STEADY_TIME))

        # Inference stays off the executor's thread, so services and parameters answer while it runs.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recognizer")
        self._busy = threading.Event()
        # So that no image is dropped, and no closure late, for a pose.
        self._surveyor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="surveyor")
        self._waiting_closures = threading.Semaphore(MOST_WAITING_CLOSURES)
        # So that no image is dropped because somebody looks at the matches.
        self._artist = ThreadPoolExecutor(max_workers=1, thread_name_prefix="artist")
        self._pictures = threading.Semaphore(MOST_PICTURES)
        self._calibrations: deque[tuple[Any, ...]] = deque(maxlen=MOST_CALIBRATIONS)  # that differ, the latest last
        self._calibration = CalibrationSubscriber(self, self.resolve_topic_name("image"), self._on_camera_info)
        self._unusable_calibration = ""  # why it is not used
        self._seconds_without_calibration = 0  # while images come
        self.create_subscription(Odometry, "odometry", self._on_odometry, ODOMETRY)
        self._depths = RecentDepths[Image](config.recent_images, _bytes_of)
        self.create_subscription(Image, "depth", self._on_depth, NEWEST_IMAGES)
        self._recent: RecentImages[Image | CompressedImage] = RecentImages(config.recent_images, _bytes_of)
        # Images that are described after one another, since a back end wants each of them.
        self._waiting = threading.Semaphore(config.recent_images)
        self._asked = config.keyframe_source == "topic"
        if self._asked:
            # Room for a burst of as many stamps as there can be images for them.
            depth = max(EVERY_RESULT.depth, config.recent_images)
            stamps = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE)
            self._listen(Header, "keyframe_stamps", self._on_keyframe_stamp, stamps)
        kind = CompressedImage if config.compressed else Image
        self._listen(kind, "image", self._on_image, NEWEST_IMAGES if self._asked else NEWEST_IMAGE)
        self._fleet = self._join_fleet() if config.fleet else None
        card, backend = self._recognizer.network.card, self._recognizer.network.backend.name
        kept = f"kept in {config.database}" if config.database else "kept in memory only, because database is not set"
        if repeated := self._recognizer.database.repeated():
            self.get_logger().warning(repeated)
        self.get_logger().info(
            f"ready: {card.name} ({card.network}, {card.descriptor_bits} bits) on {backend}, "
            f"{counted(len(self._recognizer.database), 'keyframe')}, images from {self.resolve_topic_name('image')}; "
            f"the map is {kept}"
        )

    def _join_fleet(self) -> FleetTopics:
        """Connect to the fleet's map, which needs more than is installed with the node; raises ConfigError."""
        try:
            from binvpr_ros.ros.fleet_topics import FleetTopics
        except ModuleNotFoundError as error:
            if error.name != "asyncpg":
                raise
            remedy = how_to_install_module("asyncpg", "fleet")
            raise ConfigError(f"fleet needs asyncpg, which is not installed; {remedy}") from None
        publisher = self.create_publisher(PointCloud2, "fleet_closures", EVERY_RESULT)
        return FleetTopics((self._closures, publisher), self._recognizer, self._voice)

    def close(self) -> None:
        """Finish the image in work, close the map, and say what became of all images."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._surveyor.shutdown(wait=True, cancel_futures=True)
        self._artist.shutdown(wait=True, cancel_futures=True)
        if self._fleet is not None:
            self._fleet.close()
        self._recognizer.close()
        self._voice.farewell(self._statistics)

    def _listen(self, kind: Any, topic: str, callback: Callable[[Any], None], quality: QoSProfile) -> None:
        """Subscribe, and notice lost messages and publishers that do not fit where the middleware reports them."""

        def on_incompatible(event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
            self._voice.warn(
                f"qos of {topic}",
                f"no messages arrive from a publisher of {self.resolve_topic_name(topic)}, because its {policy} is "
                "weaker than this node requires; publish with ROS's default quality of service",
            )

        callbacks = SubscriptionEventCallbacks(message_lost=self._on_message_lost, incompatible_qos=on_incompatible)
        try:
            self.create_subscription(kind, topic, callback, quality, event_callbacks=callbacks)
        except UnsupportedEventTypeError:
            self.get_logger().info("this middleware does not report lost messages; messages_lost stays 0")
            self.create_subscription(kind, topic, callback, quality)

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        names = {parameter.name for parameter in Config.parameters()}
        changes = {parameter.name: parameter.value for parameter in parameters if parameter.name in names}
        try:
            self._recognizer.config = self._recognizer.config.replace(**changes)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _service(self, name: str, action: Callable[[], str]) -> Callable[[Trigger.Request, Trigger.Response], Any]:
        def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            try:
                response.success, response.message = True, action()
                self.get_logger().info(f"{name}: {response.message}")
            except DatabaseError as error:
                response.success, response.message = False, str(error)
                self.get_logger().warning(f"{name}: {error}")
            return response

        return answer

    def _reset(self) -> str:
        sentence = self._recognizer.reset()
        self._graph.begin(self._recognizer.database.session)
        return sentence

    def _on_message_lost(self, event: Any) -> None:
        # Fast DDS now and then reports a change of 2,147,483,647.
        if 0 < event.total_count_change <= MOST_LOST_AT_ONCE:
            self._statistics.count("messages_lost", event.total_count_change)

    def _on_camera_info(self, message: CameraInfo) -> None:
        """Take over the camera's calibration where it is new."""
        topic = self.resolve_topic_name("image")
        rectified = "image_rect" in topic
        calibration = calibration_in(message, rectified)
        if self._calibrations and calibration == self._calibrations[-1]:
            return
        if came_before := calibration in self._calibrations:
            self._calibrations.remove(calibration)
            self._voice.warn(
                "calibrations",
                f"different calibrations take turns on {self._calibration.topics}, and the latest is used; make sure "
                f"that only the camera of {topic} publishes there",
                interval=math.inf,
            )
        self._calibrations.append(calibration)
        try:
            self._recognizer.camera = camera_from_info(message, rectified)
            self._unusable_calibration = ""
            if not came_before:
                self._voice.tell(
                    "calibrated",
                    f"the camera of {topic} is calibrated: loops are verified without the distortion of its lens",
                )
        except CameraInfoError as error:
            self._recognizer.camera = None
            self._unusable_calibration = f"camera_info is not used: {error}"
            if not came_before:
                self._voice.warn("camera_info", f"{self._unusable_calibration}; {UNCALIBRATED}")

    def _look_for_calibration(self) -> None:
        """Look for the calibration beside the images too, and say once that none has come."""
        self._calibration.look_around()
        if self._calibrations or not self._statistics.counts["images_processed"]:
            return
        self._seconds_without_calibration += 1
        if self._seconds_without_calibration >= CALIBRATION_SECONDS and self._recognizer.config.verify:
            self._voice.once(
                "calibration",
                f"no calibration has arrived on {self._calibration.topics}: {UNCALIBRATED}; publish a CameraInfo "
                "there, or remap camera_info",
            )

    def _verification(self) -> str:
        """Return how closures are verified, for diagnostics."""
        if not self._recognizer.config.verify:
            return "none, because verify is false"
        if self._recognizer.camera is not None:
            return "calibrated"
        missing = f"no calibration has arrived on {self._calibration.topics}"
        return f"uncalibrated: {self._unusable_calibration or missing}"

    def _on_odometry(self, message: Odometry) -> None:
        pose = message.pose.pose
        position, orientation = pose.position, pose.orientation
        stamp, frame = to_nanoseconds(message.header.stamp), message.header.frame_id
        if any((position.x, position.y, position.z, orientation.x, orientation.y, orientation.z, orientation.w)):
            # All zeros say that the position is not known.
            self._recognizer.odometry.add(stamp, frame, (position.x, position.y, position.z))
        self._graph.add_odometry(
            stamp,
            frame,
            (position.x, position.y, position.z),
            (orientation.x, orientation.y, orientation.z, orientation.w),
        )

    def _on_depth(self, message: Image) -> None:
        self._depths.add(to_nanoseconds(message.header.stamp), message)

    def _depth_at(self, stamp: int) -> DepthImage | None:
        """Return the depth image of the image taken at `stamp`; None where there is none, or none that can be used."""
        message = self._depths.at(stamp)
        try:
            return None if message is None else depth_from_message(message)
        except ImageError as error:
            self._voice.warn("depth", f"skipped a depth image: {error}")
            return None

    def _on_image(self, message: Image | CompressedImage) -> None:
        """Hand the image to the worker, or drop it when that is busy: a frame never waits behind another."""
        self._statistics.count("images_received")
        if self._asked:
            self._describe(self._recent.add(to_nanoseconds(message.header.stamp), message))
            return
        if self._busy.is_set():
            self._statistics.count("images_dropped")
            return
        self._busy.set()
        self._start(message)

    def _on_keyframe_stamp(self, message: Header) -> None:
        """Describe the image that the back end has made its keyframe."""
        self._statistics.count("stamps_received")
        self._describe(self._recent.ask(to_nanoseconds(message.stamp)))

    def _describe(self, answer: Answer[Image | CompressedImage]) -> None:
        """Hand the images that are keyframes to the worker, and report stamps that have none."""
        for stamp in answer.without_image:
            self._statistics.count("stamps_without_image")
            reason = "lost, or too old"
            if (fit := self._recent.fit) is not None:
                reason += (
                    f"; only the latest {fit} images of this size are kept ({MOST_BYTES >> 20} MiB), send smaller ones"
                )
            self._voice.warn("stamps", f"there is no image for the keyframe at {stamp / NANOSECONDS:.3f} s: {reason}")
        for image in answer.images:
            # Bounded: a back end that names keyframes faster than they are described must not fill the memory.
            if self._waiting.acquire(blocking=False):
                self._start(image)
            else:
                self._statistics.count("images_dropped")

    def _start(self, message: Image | CompressedImage) -> None:
        """Hand one image to the worker."""
        recognized = self._worker.submit(self._recognize, message)
        recognized.add_done_callback(functools.partial(self._on_recognized, message))

    def _on_recognized(self, message: Image | CompressedImage, future: Future[Recognition | None]) -> None:
        self._busy.clear()
        if self._asked:
            self._waiting.release()
        if future.cancelled():
            return
        if (error := future.exception()) is not None:
            self._skip("error", f"an error in the program: {error!r}; please report it")
        elif (recognition := future.result()) is not None:
            # By now the next image is not dropped any more.
            if recognition.keyframe is not None:
                self._voice.keyframe(recognition.keyframe, recognition.verdict, self._recognizer.database.path_of)
            if recognition.verdict.closures and self._waiting_closures.acquire(blocking=False):
                done = self._surveyor.submit(self._constrain, message, recognition)
                done.add_done_callback(self._on_constrained)
            self._show(message, recognition)

    def _recognize(self, message: Image | CompressedImage) -> Recognition | None:
        """Recognise the place in one image and publish the result (worker thread); None where it cannot be used."""
        started = time.perf_counter()
        stamp = to_nanoseconds(message.header.stamp)

        def publish(_: Keyframe, verdict: Verdict) -> None:
            if verdict.closures:
                self._closures.publish(message_from_closures(message.header, verdict.closures))

        try:
            depth = functools.partial(self._depth_at, stamp) if self._depths.any_came else None
            image = functools.partial(decode, message, self._stretch)
            recognition = self._recognizer.process(image, stamp, depth, publish)
        except ImageError as error:
            self._skip("image", str(error))
            return None
        except StampError as error:
            self._skip("stamp", str(error))
            return None
        self._tell(recognition)
        if self._fleet is not None:
            self._fleet.offer(recognition, message.header.frame_id)
        if recognition.keyframe is not None:
            self._keyframes.publish(message.header)
            self._graph.add(recognition.keyframe, [closure.match for closure in recognition.verdict.closures])
        now = time.perf_counter()
        latency = self.get_clock().now().nanoseconds - stamp
        self._statistics.count_recognition(recognition, message.header.frame_id, (now - started) * 1e3, latency / 1e6)
        return recognition

    def _tell(self, recognition: Recognition) -> None:
        """Warn of what is not as it should be."""
        if recognition.keyframe is not None:
            self._statistics.failure = recognition.failure
        if recognition.failure:
            self._voice.warn("database", f"a keyframe is kept in memory only: {recognition.failure}")
        if recognition.without_depth:
            sentence = f"depth is not used: {recognition.without_depth}"
            self._voice.warn("depth_unused", sentence, interval=math.inf)
        if recognition.unmatched:
            self._voice.warn("unmatched", recognition.unmatched)
        if recognition.new_session:
            self.get_logger().warning(
                f"the stamps jumped back: session {self._recognizer.database.session} begins (a bag that starts again?)"
            )

    def _constrain(self, message: Image | CompressedImage, recognition: Recognition) -> None:
        """Publish the relative poses of closures, and the pixels that tell them where somebody looks (a thread's)."""
        closures = recognition.verdict.closures
        if self._matches.get_subscription_count():
            height, width = decode(message, copy.copy(self._stretch)).shape[:2]
            self._matches.publish(message_from_matches(message.header, closures, (width, height)))
        constraints = recognition.constraints()
        self._statistics.count("closures_of_unsure_calibration", recognition.of_unsure_calibration)
        if constraints:
            self._constraints.publish(message_from_constraints(message.header, constraints))
        for constraint in constraints:
            known = constraint.pose.scale_known
            self._statistics.count(f"constraints_{'with' if known else 'without'}_scale")

    def _on_constrained(self, future: Future[None]) -> None:
        self._waiting_closures.release()
        if not future.cancelled() and (error := future.exception()) is not None:
            self._voice.warn(
                "constraint", f"a closure has no pose because of an error in the program: {error!r}; please report it"
            )

    def _relative_poses(self) -> str:
        """Return what is known of the relative poses of closures, for diagnostics."""
        if not self._recognizer.config.verify:
            return "none, because verify is false"
        if self._recognizer.camera is None:
            return f"none: {self._unusable_calibration or f'no calibration has arrived on {self._calibration.topics}'}"
        if self._depths.any_came:
            return "with scale, where depth is known"
        return f"without scale: no depth image has arrived on {self.resolve_topic_name('depth')}"

    def _show(self, message: Image | CompressedImage, recognition: Recognition) -> None:
        """Have a keyframe drawn beside its best match where somebody looks at that, and no more than can be drawn."""
        if (
            recognition.verdict.best is not None
            and self._match_image.get_subscription_count()
            and self._pictures.acquire(blocking=False)
        ):
            self._artist.submit(self._draw, message, recognition).add_done_callback(self._on_drawn)

    def _draw(self, message: Image | CompressedImage, recognition: Recognition) -> None:
        """Publish the picture of a keyframe beside its best match (artist's thread)."""
        # A copy of the stretch, since the original belongs to the worker's thread, and has followed this image already.
        picture = picture_of(self._recognizer, decode(message, copy.copy(self._stretch)), recognition)
        if picture is not None:
            shown = message_from_array(picture, "rgb8")
            shown.header = message.header
            self._match_image.publish(shown)

    def _on_drawn(self, future: Future[None]) -> None:
        self._pictures.release()
        if not future.cancelled() and (error := future.exception()) is not None:
            self._voice.warn(
                "picture", f"a match was not drawn because of an error in the program: {error!r}; please report it"
            )

    def _skip(self, kind: str, reason: str) -> None:
        """Count an image that could not be used, and warn of it."""
        self._statistics.count_unusable(kind, reason)
        self._voice.warn(kind, f"skipped an image: {reason}")

    def _publish_graph(self) -> None:
        """Draw the graph where it has changed and somebody looks at it."""
        if self._graph_markers.get_subscription_count() and (drawing := self._graph.changes()) is not None:
            self._graph_markers.publish(message_from_drawing(drawing))

    def _publish_diagnostics(self) -> None:
        values, database = self._statistics.values(), self._recognizer.database
        lately, rate = self._statistics.lately(), self._statistics.rate_hz
        values |= {
            "rate_hz": f"{rate:.1f}",
            "keyframes_matched": str(len(database)),
            "session": str(database.session),
            "model": self._recognizer.network.card.name,
            "backend": self._recognizer.network.backend.name,
            "features_dropped": str(database.features_dropped),
            "verification": self._verification(),
            "relative_poses": self._relative_poses(),
            **(self._fleet.values() if self._fleet is not None else {}),
        }
        config, failure = self._recognizer.config, self._statistics.failure
        topic, stamps_topic = map(self.resolve_topic_name, ("image", "keyframe_stamps"))
        silence = self._why_silent(lately, topic) if is_silent(lately) else None
        well = health(lately, rate, config, topic, stamps_topic, failure, free_bytes(config), database.own, silence)
        if self._fleet is not None and well.level == Level.OK and (trouble := self._fleet.trouble):
            well = Health(Level.WARN, trouble, "fleet")
        self._voice.health(well)
        self._voice.summary(self._statistics)
        status = DiagnosticStatus(
            level=bytes([well.level]),
            name=status_name(self.get_name(), self.get_namespace()),
            message=well.text,
            hardware_id=self._statistics.frame_id,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        stamp = from_nanoseconds(self.get_clock().now().nanoseconds)
        self._diagnostics.publish(DiagnosticArray(header=Header(stamp=stamp), status=[status]))

    def _why_silent(self, lately: Counter[str], topic: str) -> Silence:
        """Return why no usable image came in the latest second, and what to do."""
        if not lately["images_received"]:
            return why_nothing_comes(self, topic, self._recognizer.config.compressed)
        kind, reason = self._statistics.skipped
        remedy = (
            "; check that the camera's driver stamps its images, and that /clock goes on" if kind == "stamp" else ""
        )
        return Silence(f"skipped: {kind}", f"every image is skipped, because {reason}{remedy}")


def status_name(node: str, namespace: str) -> str:
    """Return the name of a node's diagnostics, by which the nodes of several cameras are told apart.

    The namespace is left out where it says nothing: launch's own repeats the node's name.
    """
    namespace = namespace.strip("/")
    return f"{node if namespace in ('', node) else f'{namespace}/{node}'}: place recognition"


def _bytes_of(image: Image | CompressedImage) -> int:
    """Return the size of an image's data in bytes."""
    return len(image.data)


def main() -> int:
    """Run the node until it is told to stop; the exit status is 1 where it cannot start."""
    parser = argparse.ArgumentParser(
        prog="binvpr_node",
        description="Recognise places in camera images, and publish loop closures.",
        usage="%(prog)s [--help] [--ros-args -r image:=TOPIC -p PARAMETER:=VALUE --params-file FILE ...]",
        epilog="config/binvpr.yaml describes the parameters, docs/interfaces.md the topics.",
    )
    return run_node(BinvprNode, "binvpr", parser, START_ERRORS)


if __name__ == "__main__":
    sys.exit(main())
