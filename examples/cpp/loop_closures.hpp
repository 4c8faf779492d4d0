// SPDX-License-Identifier: Apache-2.0
// Reads the topic loop_closures of binvpr_ros. Copy this file into your package: it needs sensor_msgs and nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include <sensor_msgs/msg/point_cloud2.hpp>
#include <sensor_msgs/point_cloud2_iterator.hpp>

struct LoopClosure
{
  std::int64_t query, match;  // stamps of the two images, nanoseconds
  float score;                // 0 to 1
  std::int32_t inliers;       // -1: not verified by geometry
  bool same_session;          // false: a relocalisation in an earlier map
};

// Returns the rows of a message, best first; throws std::runtime_error where it has not the fields of loop_closures, or
// its size is not that of its data.
inline std::vector<LoopClosure> readLoopClosures(const sensor_msgs::msg::PointCloud2 & msg)
{
  if (msg.data.size() != std::size_t{msg.height} * msg.width * msg.point_step) {
    throw std::runtime_error("the message is no table of loop closures: its size is not that of its data");
  }
  using Unsigned = sensor_msgs::PointCloud2ConstIterator<std::uint32_t>;
  using Signed = sensor_msgs::PointCloud2ConstIterator<std::int32_t>;
  Unsigned nanosec(msg, "match_nanosec"), session(msg, "match_session"), current(msg, "query_session");
  Signed sec(msg, "match_sec"), inliers(msg, "inliers");
  sensor_msgs::PointCloud2ConstIterator<float> score(msg, "score");
  const std::int64_t query = msg.header.stamp.sec * std::int64_t{1000000000} + msg.header.stamp.nanosec;
  std::vector<LoopClosure> closures;
  for (; score != score.end(); ++sec, ++nanosec, ++session, ++current, ++score, ++inliers) {
    const std::int64_t match = *sec * std::int64_t{1000000000} + *nanosec;
    closures.push_back({query, match, *score, *inliers, *session == *current});
  }
  return closures;
}
