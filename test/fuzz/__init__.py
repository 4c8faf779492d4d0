# SPDX-License-Identifier: Apache-2.0
"""Feeds rubbish to all that reads what others wrote, guided by coverage: `make fuzz`."""
