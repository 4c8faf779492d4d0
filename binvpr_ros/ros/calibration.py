# SPDX-License-Identifier: Apache-2.0
"""The subscription to the camera's calibration: live or latched, on `camera_info` or beside the images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from binvpr_ros.recordings.bags import camera_info_topic

LIVE = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


def calibration_in(message: CameraInfo, rectified: bool) -> tuple[Any, ...]:
    """Return what of a CameraInfo is the calibration of images, `rectified` or not; equal where it is the same.

    Numbers are there as bytes, since a NaN equals nothing, not even itself.
    """
    roi = message.roi
    numbers = [message.k, message.d, *([message.p] if rectified else [])]
    return (
        (message.width, message.height, roi.x_offset, roi.y_offset, roi.width, roi.height),
        message.distortion_model,
        *(one.tobytes() for one in numbers),
    )


class CalibrationSubscriber:
    """Calls `callback` with what comes on `camera_info`, or beside `image_topic` (a full name) as image_transport does.

    The topic beside the images is followed while nobody has remapped `camera_info` and nothing publishes there.
    """

    def __init__(self, node: Node, image_topic: str, callback: Callable[[CameraInfo], None]) -> None:
        self._node, self._callback = node, callback
        self.topic = node.resolve_topic_name("camera_info")
        remapped = self.topic != node.resolve_topic_name("camera_info", only_expand=True)
        self._beside = self.topic if remapped else camera_info_topic(image_topic)
        self._followed: dict[str, list[Any]] = {}  # subscriptions by topic
        self._follow(self.topic)

    @property
    def topics(self) -> str:
        """The names of the topics on which a calibration is looked for."""
        return " and ".join(dict.fromkeys((self.topic, self._beside)))

    def look_around(self) -> None:
        """Follow what publishes now, the topic beside the images and latched publishers too; called once a while."""
        if self._beside != self.topic:
            if self._node.count_publishers(self.topic):
                for subscription in self._followed.pop(self._beside, []):
                    self._node.destroy_subscription(subscription)
            elif self._beside not in self._followed and self._node.count_publishers(self._beside):
                self._follow(self._beside)
        for topic, subscriptions in self._followed.items():
            # What is latched comes late to no best-effort subscriber. A driver that latches nothing would warn of one
            # that asks for it, so it is asked for where it is to be had.
            if len(subscriptions) == 1 and self._is_latched(topic):
                quiet = SubscriptionEventCallbacks(
                    use_default_callbacks=False
                )  # of another publisher that does not fit
                subscriptions.append(self._subscribe(topic, LATCHED, quiet))

    def _follow(self, topic: str) -> None:
        self._followed[topic] = [self._subscribe(topic, LIVE)]

    def _is_latched(self, topic: str) -> bool:
        offered = [publisher.qos_profile for publisher in self._node.get_publishers_info_by_topic(topic)]
        return any((one.reliability, one.durability) == (LATCHED.reliability, LATCHED.durability) for one in offered)

    def _subscribe(self, topic: str, quality: QoSProfile, events: SubscriptionEventCallbacks | None = None) -> Any:
        return self._node.create_subscription(CameraInfo, topic, self._callback, quality, event_callbacks=events)
