# SPDX-License-Identifier: Apache-2.0
"""What was recorded, read without ROS: bags, and a rendered world."""
