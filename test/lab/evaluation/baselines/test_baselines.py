# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

from binvpr_ros.lab.evaluation.baselines import BASELINES


def test_the_names() -> None:
    assert list(BASELINES) == ["hog", "gist", "bow", "words", "words+binvpr20r", "efficientnet-lite0"]
    assert all(method.name == name for name, method in BASELINES.items())


def test_importing_them_does_not_import_keras() -> None:
    code = "import sys, binvpr_ros.lab.evaluation.baselines; sys.exit(bool({'keras', 'tensorflow'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
