# SPDX-License-Identifier: Apache-2.0
"""The paper's experiments (Sensors 2024, 24, 4130, section 4), run again; training for robots needs nothing of it."""
