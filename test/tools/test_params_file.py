# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from binvpr_ros.tools.params_file import parameters_of

OTHERS = "/front/driver:\n  ros__parameters: {compressed: true}\n"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("", None),
        ("- a list\n", None),
        ("/**:\n  ros__parameters: {min_score: 0.5}\n", None),
        ("/**:\n  ros__parameters: {compressed: true}\n", True),
        ("/*/binvpr:\n  ros__parameters: {compressed: true}\n", True),
        ("/front/binvpr:\n  ros__parameters: {compressed: true}\n", True),
        ("/front/**:\n  ros__parameters: {compressed: true}\n", True),
        ("/**/binvpr:\n  ros__parameters: {compressed: true}\n", True),
        ("front:\n  binvpr:\n    ros__parameters: {compressed: true}\n", True),
        (
            "/**:\n  ros__parameters: {compressed: true}\n/front/binvpr:\n  ros__parameters: {compressed: false}\n",
            False,
        ),
        ("binvpr:\n  ros__parameters: {compressed: true}\n", None),  # in no namespace
        ("/*:\n  ros__parameters: {compressed: true}\n", None),
        ("/rear/binvpr:\n  ros__parameters: {compressed: true}\n", None),
        (OTHERS, None),
        ("/**:\n  ros__parameters: {min_score: 0.5}\n" + OTHERS, None),
    ],
)
def test_what_a_params_file_says_of_a_node(tmp_path: Path, content: str, value: object) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    assert parameters_of(file, "/front/binvpr").get("compressed") is value
