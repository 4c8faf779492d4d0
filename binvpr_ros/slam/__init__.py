# SPDX-License-Identifier: Apache-2.0
"""A pose graph of keyframes: odometry and loop constraints in, drift-free poses out. No ROS; needs the extra slam."""
