# SPDX-License-Identifier: Apache-2.0
"""Offline training of the network; nothing of it is imported by the node."""
