# SPDX-License-Identifier: Apache-2.0
"""Keyframes in memory and in one SQLite file; what to forget; the command that looks after map files."""
