# SPDX-License-Identifier: Apache-2.0
"""A node that prints the relative poses of loop closures; a pose graph would add them as edges.

With binvpr_ros sourced, and its node started by launch:

    python3 print_constraints.py --ros-args -r __ns:=/binvpr
"""

from __future__ import annotations

import signal
import threading

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import PointCloud2

from binvpr_ros.ros.constraints import read_loop_constraints

# Reliable, and deep enough for a node that is busy for a while: no constraint is sent twice.
EVERY_CONSTRAINT = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)


class ConstraintPrinter(Node):
    """Prints a line for each row of `loop_constraints`."""

    def __init__(self) -> None:
        super().__init__("constraint_printer")
        self.create_subscription(PointCloud2, "loop_constraints", self.on_loop_constraints, EVERY_CONSTRAINT)

    def on_loop_constraints(self, message: PointCloud2) -> None:
        """Print the rows of a message, which are best first."""
        try:
            constraints = read_loop_constraints(message)
        except ValueError as error:  # somebody else publishes on the topic
            self.get_logger().warning(f"message skipped: {error}", throttle_duration_sec=10.0)
            return
        for one in constraints:
            x, y, z = one.pose.translation
            deviations = np.sqrt(np.diag(one.pose.covariance))
            query, match = one.query_stamp * 1e-9, one.match_stamp * 1e-9  # seconds
            where = "at" if one.pose.scale_known else "in the direction"
            print(
                f"the camera at {query:.3f} s was {where} {x:.3f}, {y:.3f}, {z:.3f} of that at {match:.3f} s", end=" "
            )
            turn = np.rad2deg(deviations[3:].max())
            print(f"(off by {deviations[:3].max():.3f}, and {turn:.2f} degrees)", flush=True)


def main() -> None:
    """Print until Ctrl-C."""
    # rclpy's own handler would end the context while rclpy may be waiting with it, which now and then is an error.
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node, executor = ConstraintPrinter(), SingleThreadedExecutor()
    executor.add_node(node)
    while not stop.is_set():
        executor.spin_once(timeout_sec=0.5)
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
