# SPDX-License-Identifier: Apache-2.0
"""Which loop constraints contradict odometry, or each other (after PCM: Mangelson et al., ICRA 2018, III).

Two constraints between the same stretches of a route close a loop with the odometry between their ends; what is left
over around it must be explained by their noise and by that of the odometry. PCM searches the largest set of constraints
that agree pairwise each time. Here a contradiction, once found, is kept, and is decided by votes: that is incremental,
takes the same time for each constraint, and does not depend on the order in which they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.slam.poses import Transform, adjoints, carried, differences, inverse

GATE = 36.0
"""Squared distance of Mahalanobis beyond which there is a contradiction: six standard deviations in one direction.

A wide gate: noise has heavy tails, and what is but a little off is left to the robust kernel.
"""
SHORTEST = 1.0  # metres; odometry errors of a metre are taken as one


@dataclass(frozen=True, eq=False)
class Ends:
    """The two keyframes of N constraints, in the odometry of their runs, which begin at the identity.

    `noise` is the covariance of the odometry's twist since the run began, in the frame in which the run began, and
    `travelled` are the metres since.
    """

    poses: Transform  # [N,4,4]
    noise: NDArray[np.float64]  # [N,6,6]
    travelled: NDArray[np.float64]  # [N]

    def __getitem__(self, chosen: slice | NDArray[np.integer]) -> Ends:
        """Return some of them."""
        return Ends(self.poses[chosen], self.noise[chosen], self.travelled[chosen])


@dataclass(frozen=True, eq=False)
class Constraints:
    """N measured transforms [N,4,4] of the query's camera in the match's, with covariances [N,6,6]."""

    queries: Ends
    matches: Ends
    transforms: Transform
    covariances: NDArray[np.float64]

    def __getitem__(self, chosen: slice | NDArray[np.integer]) -> Constraints:
        """Return some of them."""
        return Constraints(
            self.queries[chosen], self.matches[chosen], self.transforms[chosen], self.covariances[chosen]
        )


def _drift(ones: Ends, others: Ends) -> NDArray[np.float64]:
    """Return the covariance [N,6,6] of the odometry between keyframes, in the frame in which the run began.

    Errors of odometry persist: a wheel of the wrong size is off in every metre. They are taken as all of one sign here,
    so that the deviation grows with the way, where it would grow with its square root.
    """
    sign = np.sign(others.travelled - ones.travelled)
    way = np.maximum(np.abs(others.travelled - ones.travelled) / SHORTEST, 1.0)
    return (others.noise - ones.noise) * (sign * way)[:, None, None]


def squared(errors: NDArray[np.float64], covariances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared distances of Mahalanobis [N] of errors [N,6]."""
    covariances = (covariances + np.swapaxes(covariances, -1, -2)) / 2
    covariances = covariances + 1e-12 * np.eye(6)
    return np.einsum("ni,ni->n", errors, np.linalg.solve(covariances, errors[..., None])[..., 0])


def beside_odometry(some: Constraints) -> NDArray[np.float64]:
    """Return the squared distance [N] of each constraint from what odometry says; both ends are of one run."""
    errors = differences(inverse(some.transforms) @ inverse(some.matches.poses) @ some.queries.poses)
    drift = carried(_drift(some.matches, some.queries), adjoints(inverse(some.queries.poses)))
    return squared(errors, some.covariances + drift)


def beside_each_other(one: Constraints, others: Constraints) -> NDArray[np.float64]:
    """Return the squared distances [N] of one constraint from others; their ends are of the same two runs.

    Around the loop: from its query to its match, by odometry to another's match, to that one's query, and back by
    odometry.
    """
    back = inverse(others.queries.poses) @ one.queries.poses
    between = inverse(one.matches.poses) @ others.matches.poses
    errors = differences(inverse(one.transforms) @ between @ others.transforms @ back)
    count = len(others.transforms)

    def repeated(ends: Ends) -> Ends:
        return ends[np.zeros(count, np.int64)]

    of_queries = carried(_drift(others.queries, repeated(one.queries)), adjoints(inverse(one.queries.poses)))
    of_matches = carried(
        _drift(others.matches, repeated(one.matches)), adjoints(inverse(one.matches.poses @ one.transforms))
    )
    of_others = carried(others.covariances, adjoints(inverse(back)))
    return squared(errors, one.covariances + of_others + of_queries + of_matches)


def outvoted(contradictions: Mapping[int, Iterable[int]]) -> set[int]:
    """Return which constraints are refused, given for each of them those that it contradicts.

    Of two that contradict each other the one stands that contradicts fewer; where both contradict as many, neither. So
    no two that stand contradict each other.
    """
    votes = {number: len(set(others)) for number, others in contradictions.items()}
    return {
        number for number, others in contradictions.items() if any(votes[other] <= votes[number] for other in others)
    }
