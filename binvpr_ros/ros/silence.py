# SPDX-License-Identifier: Apache-2.0
"""Why no image comes: what the ROS graph says of the image topic, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo

IMAGE_TYPES = {False: "sensor_msgs/msg/Image", True: "sensor_msgs/msg/CompressedImage"}
"""What the node reads, by its parameter `compressed`."""
MOST_TOPICS = 8
"""Topics that are named; a robot may have dozens."""


def why_nothing_comes(node: Node, topic: str, compressed: bool) -> str:
    """Return why nothing is received from the image topic of this full name, and what to do, in a sentence.

    `compressed` says that the node subscribes to CompressedImage.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return f"nothing publishes there; {_image_topics(node)}"
    wanted, other = IMAGE_TYPES[compressed], IMAGE_TYPES[not compressed]
    kinds = Counter(map(_described, publishers))
    found = " and ".join(f"{count} publisher{'s' * (count > 1)} of {kind}" for kind, count in kinds.items())
    types = {publisher.topic_type for publisher in publishers}
    if wanted in types:
        return (
            f"it has {found}, but nothing arrives; check `ros2 topic hz {topic}`, and see README if large images get "
            "lost"
        )
    if other in types:
        return f"it has {found}; set the parameter compressed to {str(not compressed).lower()}"
    return f"it has {found}, which are no images; {_image_topics(node)}"


def _described(endpoint: TopicEndpointInfo) -> str:
    """Return the type and the quality of service of a publisher."""
    quality = endpoint.qos_profile
    policies = [policy.name.lower().replace("_", " ") for policy in (quality.reliability, quality.durability)]
    return f"{endpoint.topic_type} ({', '.join(policies)})"


def _image_topics(node: Node) -> str:
    """Return which image topics others publish, and what to do with them."""
    found = [
        f"{name} ({kind.rpartition('/')[2]})"
        for name, kinds in sorted(node.get_topic_names_and_types())
        for kind in sorted(set(kinds) & set(IMAGE_TYPES.values()))
        if _others_publish(node, node.get_publishers_info_by_topic(name), kind)
    ]
    if not found:
        return (
            "no other image topic is published either; start the camera, and check that ROS_DOMAIN_ID is the same there"
        )
    more = f" and {len(found) - MOST_TOPICS} more" if len(found) > MOST_TOPICS else ""
    return (
        f"remap image (with launch: image_topic) to one of {', '.join(found[:MOST_TOPICS])}{more}; "
        "CompressedImage needs compressed:=true"
    )


def _others_publish(node: Node, publishers: Iterable[TopicEndpointInfo], kind: str) -> bool:
    """Tell whether another node publishes messages of that type."""
    own = node.get_name(), node.get_namespace()
    return any((one.node_name, one.node_namespace) != own and one.topic_type == kind for one in publishers)
