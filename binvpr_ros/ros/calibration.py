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
        self._subscribe(self.topic)
        self._subscriptions_beside: list[Any] = []

    @property
    def topics(self) -> str:
        """The names of the topics on which a calibration is looked for."""
        return " and ".join(dict.fromkeys((self.topic, self._beside)))

    def look_beside(self) -> None:
        """Begin to follow the topic beside the images, or end to, by who publishes now; called once a while."""
        if self._beside == self.topic:
            return
        if self._node.count_publishers(self.topic):
            for subscription in self._subscriptions_beside:
                self._node.destroy_subscription(subscription)
            self._subscriptions_beside = []
        elif not self._subscriptions_beside and self._node.count_publishers(self._beside):
            self._subscriptions_beside = self._subscribe(self._beside)

    def _subscribe(self, topic: str) -> list[Any]:
        """Subscribe twice: what is latched comes late to no best-effort subscriber, what is not to no latched one."""
        # Each publisher fits one of the two, so that it does not fit the other is no trouble.
        quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
        return [
            self._node.create_subscription(CameraInfo, topic, self._callback, quality, event_callbacks=events)
            for quality, events in ((LIVE, None), (LATCHED, quiet))
        ]
