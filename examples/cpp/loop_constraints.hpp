// SPDX-License-Identifier: Apache-2.0
// Reads the topic loop_constraints of binvpr_ros. Copy this file into your package: it needs sensor_msgs and nothing
// else.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include <sensor_msgs/msg/point_cloud2.hpp>
#include <sensor_msgs/point_cloud2_iterator.hpp>

// The pose of the query's camera in the frame of the match's, both optical: p_match = R p_query + t.
struct LoopConstraint
{
  std::int64_t query, match;  // stamps of the two images, nanoseconds
  bool same_session;          // false: the match is of an earlier map
  bool scale_known;           // false: `translation` is of length one, the direction alone
  std::int32_t inliers;
  std::array<double, 3> translation;  // x, y, z in metres
  std::array<double, 4> rotation;     // a quaternion, x, y, z, w
  std::array<double, 36> covariance;  // row by row: x, y, z, and the rotation about the axes of the match
};

// Returns the rows of a message, best first; throws std::runtime_error where it has not the fields of loop_constraints,
// or its size is not that of its data.
inline std::vector<LoopConstraint> readLoopConstraints(const sensor_msgs::msg::PointCloud2 & msg)
{
  constexpr std::size_t row = 384;
  if (msg.point_step != row || msg.data.size() != std::size_t{msg.height} * msg.width * row) {
    throw std::runtime_error("the message is no table of loop constraints: its size is not that of its data");
  }
  using Unsigned = sensor_msgs::PointCloud2ConstIterator<std::uint32_t>;
  using Signed = sensor_msgs::PointCloud2ConstIterator<std::int32_t>;
  using Double = sensor_msgs::PointCloud2ConstIterator<double>;
  Unsigned query_nanosec(msg, "query_nanosec"), match_nanosec(msg, "match_nanosec"), known(msg, "scale_known");
  Unsigned query_session(msg, "query_session"), match_session(msg, "match_session");
  Signed query_sec(msg, "query_sec"), match_sec(msg, "match_sec"), inliers(msg, "inliers");
  Double translation(msg, "x"), rotation(msg, "qx"), covariance(msg, "covariance");  // each the first of several
  const auto nanoseconds = [](std::int32_t sec, std::uint32_t nanosec) {return sec * std::int64_t{1000000000} + nanosec;};
  std::vector<LoopConstraint> constraints;
  for (; known != known.end(); ++known) {
    LoopConstraint one{
      nanoseconds(*query_sec, *query_nanosec), nanoseconds(*match_sec, *match_nanosec),
      *query_session == *match_session, *known != 0, *inliers, {}, {}, {}};
    std::copy_n(&*translation, one.translation.size(), one.translation.begin());
    std::copy_n(&*rotation, one.rotation.size(), one.rotation.begin());
    std::copy_n(&*covariance, one.covariance.size(), one.covariance.begin());
    constraints.push_back(one);
    ++query_nanosec, ++match_nanosec, ++query_session, ++match_session, ++query_sec, ++match_sec, ++inliers;
    ++translation, ++rotation, ++covariance;
  }
  return constraints;
}
