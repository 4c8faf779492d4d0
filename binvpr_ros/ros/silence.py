# SPDX-License-Identifier: Apache-2.0
"""Why no image comes: what the ROS graph says of the image topic, and what to do."""

from __future__ import annotations

import shutil
from collections import Counter

from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo

from binvpr_ros.ros.diagnostics import Silence

IMAGE_TYPES = {False: "sensor_msgs/msg/Image", True: "sensor_msgs/msg/CompressedImage"}
"""What the node reads, by its parameter `compressed`."""
MATCH_IMAGE = "/match_image"
"""In the names of the image topics of nodes such as this one, which are no cameras."""
MOST_TOPICS = 8
"""Topics that are named; a robot may have dozens."""


def why_nothing_comes(node: Node, topic: str, compressed: bool) -> Silence:
    """Return why nothing is received from the image topic of this full name, and what to do.

    `compressed` says that the node subscribes to CompressedImage.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        others = _image_topics(node, topic)
        return Silence("remap" if others else "no_camera", f"nothing publishes there; {_remedy(others)}")
    wanted, other = IMAGE_TYPES[compressed], IMAGE_TYPES[not compressed]
    kinds = Counter(map(_described, publishers))
    found = " and ".join(f"{count} publisher{'s' * (count > 1)} of {kind}" for kind, count in kinds.items())
    types = {publisher.topic_type for publisher in publishers}
    if wanted in types:
        return Silence(
            "nothing_arrives",
            f"it has {found}, but nothing arrives; check that images are still sent{_by_ros2cli(topic)}, and see "
            '"Lost images" in docs/robot.md',
        )
    if other in types:
        return Silence("compressed", f"it has {found}; set the parameter compressed to {str(not compressed).lower()}")
    return Silence("no_images", f"it has {found}, which are not images; {_remedy(_image_topics(node, topic))}")


def _by_ros2cli(topic: str) -> str:
    """Return how the rate of a topic is measured, where there is ros2cli: it is not among the wheels of ROS."""
    return f" (`ros2 topic hz {topic}`)" if shutil.which("ros2") else ""


def _described(endpoint: TopicEndpointInfo) -> str:
    """Return the type and the quality of service of a publisher."""
    quality = endpoint.qos_profile
    policies = [policy.name.lower().replace("_", " ") for policy in (quality.reliability, quality.durability)]
    return f"{endpoint.topic_type} ({', '.join(policies)})"


def _image_topics(node: Node, topic: str) -> list[str]:
    """Return the image topics that cameras publish beside `topic`, each with its type."""
    aside = topic, node.resolve_topic_name("~/match_image")
    return [
        f"{name} ({kind.rpartition('/')[2]})"
        for name, kinds in sorted(node.get_topic_names_and_types())
        for kind in sorted(set(kinds) & set(IMAGE_TYPES.values()))
        # Publishers are counted, since the node's remapping would change the name that it asks more of.
        if name not in aside and MATCH_IMAGE not in name and node.count_publishers(name)
    ]


def _remedy(others: list[str]) -> str:
    """Return what to do where no image is published, with the image topics that are."""
    if not others:
        return (
            "no other image topic is published either; start the camera, and check that ROS_DOMAIN_ID is the same there"
        )
    more = f" and {len(others) - MOST_TOPICS} more" if len(others) > MOST_TOPICS else ""
    return (
        f"remap image (with launch: image_topic) to one of {', '.join(others[:MOST_TOPICS])}{more}; "
        "CompressedImage needs compressed:=true"
    )
