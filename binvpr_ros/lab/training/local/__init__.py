# SPDX-License-Identifier: Apache-2.0
"""Training of a 1-bit network for local features, which learns from a teacher file and a folder of photographs."""
