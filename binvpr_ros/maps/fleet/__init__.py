# SPDX-License-Identifier: Apache-2.0
"""One map for a fleet, on PostgreSQL: what a robot sends of its own map, and what it reads of the others'."""
