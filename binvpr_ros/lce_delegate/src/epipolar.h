// SPDX-License-Identifier: Apache-2.0
// Which matches of two images obey one epipolar geometry: RANSAC with minimal samples of seven (Hartley and Zisserman,
// Multiple View Geometry, 2nd ed., algorithm 11.4), scored by truncated Sampson distances (MSAC: Torr and Zisserman, CVIU
// 2000), with local optimization (Chum, Matas and Kittler, DAGM 2003).
//
// Nothing but +, -, *, / and square roots decides, and samples follow from a fixed seed, so that every processor finds the
// same.
#pragma once

#include <cstddef>
#include <cstdint>

namespace binvpr {

constexpr std::size_t kMostEpipolarMatches = 1 << 14;

// Flags by 1 those of the matches x, y [count][2] of the one image and of the other that are within `tolerance` of the
// geometry that most obey, in the unit of the positions; returns how many. None where there are fewer than eight, or no
// geometry. Positions are finite. Throws std::bad_alloc.
std::size_t epipolar_inliers(const float* here, const float* there, std::size_t count, float tolerance,
                             std::uint8_t* inliers);

}  // namespace binvpr
