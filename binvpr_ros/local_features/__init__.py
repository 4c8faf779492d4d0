# SPDX-License-Identifier: Apache-2.0
"""Local features of images, and the verification by geometry that two images show one place."""
