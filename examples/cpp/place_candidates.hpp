// SPDX-License-Identifier: Apache-2.0
// Loop closures of binvpr_ros as candidates of an ORB-SLAM-style back end; docs/back_ends.md says where they enter.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "loop_closures.hpp"

// The closures that came last, by the stamp of their query image; filled by the subscription, read by the thread of loop closing.
class PlaceCandidates
{
public:
  void add(const std::vector<LoopClosure> & closures)
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto & closure : closures) {arrivals_.push_back(by_query_.emplace(closure.query, closure));}
    while (arrivals_.size() > kMost) {  // not the lowest stamps: a bag that is played again begins with those
      by_query_.erase(arrivals_.front());
      arrivals_.pop_front();
    }
  }

  // Stamps, in seconds, of what was seen before from where the image at `stamp` was taken, in this session only.
  std::vector<double> matches(double stamp, double tolerance) const
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto nanoseconds = [](double seconds) {return static_cast<std::int64_t>(seconds * 1e9);};
    std::vector<double> found;
    auto row = by_query_.lower_bound(nanoseconds(stamp - tolerance));
    for (; row != by_query_.end() && row->first <= nanoseconds(stamp + tolerance); ++row) {
      if (row->second.same_session) {found.push_back(row->second.match * 1e-9);}
    }
    return found;
  }

private:
  using ByQuery = std::multimap<std::int64_t, LoopClosure>;
  static constexpr std::size_t kMost = 1000;

  mutable std::mutex mutex_;
  ByQuery by_query_;
  std::deque<ByQuery::iterator> arrivals_;  // the first that came in front
};

// Appends to `candidates` the keyframes that `current` should be tried against: of `keyframes` those nearest to the
// stamps that match its own, within `tolerance` seconds. KeyFrame is that of ORB-SLAM3, or has its members used here.
template<class KeyFrame>
void appendCandidates(
  const PlaceCandidates & places, KeyFrame * current, const std::vector<KeyFrame *> & keyframes, double tolerance,
  std::vector<KeyFrame *> & candidates)
{
  const auto neighbours = current->GetConnectedKeyFrames();
  for (const double stamp : places.matches(current->mTimeStamp, tolerance)) {
    KeyFrame * nearest = nullptr;
    double distance = tolerance;
    for (KeyFrame * keyframe : keyframes) {
      const double off = std::abs(keyframe->mTimeStamp - stamp);
      if (off <= distance && !keyframe->isBad()) {
        nearest = keyframe;
        distance = off;
      }
    }
    // Neighbours are no loops; and early versions of ORB-SLAM3 crash unless a candidate has some.
    if (!nearest || nearest == current || neighbours.count(nearest) || nearest->GetConnectedKeyFrames().empty()) {
      continue;
    }
    if (std::find(candidates.begin(), candidates.end(), nearest) == candidates.end()) {candidates.push_back(nearest);}
  }
}
