# SPDX-License-Identifier: Apache-2.0
"""Image -> global bits: the model and what runs it, its card, its cells, the distance of descriptors."""
