# SPDX-License-Identifier: Apache-2.0
"""What a robot does not need: evaluation, training, benchmarks, the demo."""
