# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from robot import Robot

from binvpr_ros.ros.messages import from_nanoseconds, message_from_array

pytestmark = pytest.mark.usefixtures("ros")


def test_a_node_is_still_though_newer_images_have_replaced_some_before_it_took_them(
    world_images: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    robot = Robot(tmp_path)
    try:
        for number in range(300):  # without a pause, which is too fast for any node
            message = message_from_array(world_images[number % 20], "rgb8")
            message.header.stamp = from_nanoseconds(10**9 + number * 10**7)
            robot.camera.publish(message)
        assert robot.listener.wait_until_still()
        fates = [robot.count(f"images_{fate}") for fate in ("processed", "dropped", "unusable")]
        assert 0 < robot.count("images_received") == sum(fates) <= 300
    finally:
        robot.close()
