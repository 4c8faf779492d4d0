# SPDX-License-Identifier: Apache-2.0
"""`python -m binvpr_ros.maps.command` is `map`."""

import sys

from binvpr_ros.maps.command import main

sys.exit(main())
