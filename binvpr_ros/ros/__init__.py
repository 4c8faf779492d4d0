# SPDX-License-Identifier: Apache-2.0
"""The ROS face: the node, its messages, and what replays recordings to it."""
