# SPDX-License-Identifier: Apache-2.0
"""Settings of the middleware, which it reads from the environment. What the user has set stays."""

from __future__ import annotations

import os
import random

from binvpr_ros.config import share_directory

# Humble and Jazzy read the first, Kilted the second.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def make_room_for_large_images() -> None:
    """Let this process send images larger than Fast DDS's default shared-memory segment; call it before rclpy.init."""
    profile = str(share_directory() / "config" / "fastdds_large_images.xml")
    for variable in PROFILE_VARIABLES:
        os.environ.setdefault(variable, profile)


def isolate_ros() -> None:
    """Keep this process and its children to themselves, on this host, in a random domain; call it before rclpy.init."""
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ.setdefault("ROS_LOCALHOST_ONLY", "1")
    else:
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.randint(1, 101)))  # noqa: S311 - no secret
