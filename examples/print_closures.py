# SPDX-License-Identifier: Apache-2.0
"""A node that prints loop closures, and relocalisations in earlier maps; a back end would try to close them.

With binvpr_ros sourced, and its node started by launch:

    python3 print_closures.py --ros-args -r __ns:=/binvpr
"""

from __future__ import annotations

import signal
import threading

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import PointCloud2

from binvpr_ros.ros.closures import read_loop_closures

# Reliable, and deep enough for a back end that is busy for a while: no closure is sent twice.
EVERY_CLOSURE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)


class ClosurePrinter(Node):
    """Prints a line for each row of `loop_closures`."""

    def __init__(self) -> None:
        super().__init__("closure_printer")
        self.create_subscription(PointCloud2, "loop_closures", self.on_loop_closures, EVERY_CLOSURE)

    def on_loop_closures(self, message: PointCloud2) -> None:
        """Print the rows of a message, which are best first."""
        try:
            rows = read_loop_closures(message)
        except ValueError as error:  # somebody else publishes on the topic
            self.get_logger().warning(f"message skipped: {error}", throttle_duration_sec=10.0)
            return
        for row in rows:
            found = f"relocalised in session {row.match_session}" if row.is_relocalisation else "loop closed"
            query, match = row.query_stamp * 1e-9, row.match_stamp * 1e-9  # seconds
            print(f"{found}: the image at {query:.3f} s shows the place of {match:.3f} s", end=" ")
            print(f"(score {row.score:.2f}, {row.inliers} inliers)", flush=True)


def main() -> None:
    """Print until Ctrl-C."""
    # rclpy's own handler would end the context while rclpy may be waiting with it, which now and then is an error.
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node, executor = ClosurePrinter(), SingleThreadedExecutor()
    executor.add_node(node)
    while not stop.is_set():
        executor.spin_once(timeout_sec=0.5)
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
