# SPDX-License-Identifier: Apache-2.0
"""Visual place recognition on the robot's CPU: images in, loop-closure candidates out."""
