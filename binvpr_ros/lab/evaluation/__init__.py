# SPDX-License-Identifier: Apache-2.0
"""What recognition is measured on."""
