// SPDX-License-Identifier: Apache-2.0
// Reads the topic fleet_closures of binvpr_ros. Copy this file into your package: it needs sensor_msgs and nothing else.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include <sensor_msgs/msg/point_cloud2.hpp>
#include <sensor_msgs/point_cloud2_iterator.hpp>

enum class PoseKnown : std::uint32_t { No = 0, Direction = 1, WithScale = 2 };

// A loop that a keyframe of this robot closes to one of another map of the fleet.
struct FleetClosure
{
  std::int64_t query, match;  // stamps of the two images, nanoseconds
  bool other_clock;           // `match` is a stamp of another robot's clock
  std::string robot;          // whose map it is
  std::array<std::uint8_t, 16> map;          // the uuid of that map
  std::uint32_t map_keyframe, map_session;  // ids there
  std::uint32_t match_id, match_session;    // as in loop_closures
  float score;
  std::int32_t inliers;               // -1: not verified by geometry
  PoseKnown pose;                     // of the query's camera in the frame of the match's, both optical
  std::array<double, 3> translation;  // x, y, z in metres, or a direction of length one
  std::array<double, 4> rotation;     // a quaternion, x, y, z, w
  std::array<double, 36> covariance;  // as in loop_constraints
};

// Returns the rows of a message, best first; throws std::runtime_error where it has not the fields of fleet_closures, or
// its size is not that of its data.
inline std::vector<FleetClosure> readFleetClosures(const sensor_msgs::msg::PointCloud2 & msg)
{
  constexpr std::size_t row = 480, robot_bytes = 64;
  if (msg.point_step != row || msg.data.size() != std::size_t{msg.height} * msg.width * row) {
    throw std::runtime_error("the message is no table of fleet closures: its size is not that of its data");
  }
  using Bytes = sensor_msgs::PointCloud2ConstIterator<std::uint8_t>;
  using Unsigned = sensor_msgs::PointCloud2ConstIterator<std::uint32_t>;
  using Signed = sensor_msgs::PointCloud2ConstIterator<std::int32_t>;
  using Double = sensor_msgs::PointCloud2ConstIterator<double>;
  Unsigned nanosec(msg, "match_nanosec"), clock(msg, "other_clock"), known(msg, "pose_known");
  Unsigned keyframe(msg, "map_keyframe"), session(msg, "map_session");
  Unsigned match_id(msg, "match_id"), match_session(msg, "match_session");
  Signed sec(msg, "match_sec"), inliers(msg, "inliers");
  sensor_msgs::PointCloud2ConstIterator<float> score(msg, "score");
  Bytes map(msg, "map"), robot(msg, "robot");                                        // each the first of several
  Double translation(msg, "x"), rotation(msg, "qx"), covariance(msg, "covariance");  // likewise
  const auto nanoseconds = [](std::int32_t s, std::uint32_t rest) {return s * std::int64_t{1000000000} + rest;};
  std::vector<FleetClosure> closures;
  for (; known != known.end(); ++known) {
    const auto * name = reinterpret_cast<const char *>(&*robot);
    FleetClosure one{
      nanoseconds(msg.header.stamp.sec, msg.header.stamp.nanosec), nanoseconds(*sec, *nanosec), *clock != 0,
      std::string(name, std::find(name, name + robot_bytes, '\0')), {}, *keyframe, *session, *match_id, *match_session,
      *score, *inliers, static_cast<PoseKnown>(*known), {}, {}, {}};
    std::copy_n(&*map, one.map.size(), one.map.begin());
    std::copy_n(&*translation, one.translation.size(), one.translation.begin());
    std::copy_n(&*rotation, one.rotation.size(), one.rotation.begin());
    std::copy_n(&*covariance, one.covariance.size(), one.covariance.begin());
    closures.push_back(one);
    ++nanosec, ++clock, ++keyframe, ++session, ++match_id, ++match_session, ++sec, ++inliers, ++score;
    ++map, ++robot, ++translation, ++rotation, ++covariance;
  }
  return closures;
}
