# SPDX-License-Identifier: Apache-2.0
"""Visual place recognition on the robot's CPU: images in, loop-closure candidates out."""

import os

# OpenCV reads it when it is loaded. A few kilobytes of jpeg or png can claim a size that fills the memory, and OpenCV's
# own limit is a gigapixel; 64 megapixels are more than cameras of robots have.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 26))
