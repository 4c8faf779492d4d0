// SPDX-License-Identifier: Apache-2.0
// A node that prints loop closures, and relocalisations in earlier maps; a back end would try to close them.
//   ros2 run binvpr_examples print_closures --ros-args -r __ns:=/binvpr
#include <cinttypes>
#include <memory>
#include <stdexcept>

#include <rclcpp/rclcpp.hpp>
#include <sensor_msgs/msg/point_cloud2.hpp>

#include "loop_closures.hpp"

class ClosurePrinter : public rclcpp::Node
{
public:
  ClosurePrinter()
  : Node("closure_printer")
  {
    // Reliable, and deep enough for a back end that is busy for a while: no closure is sent twice.
    subscription_ = create_subscription<sensor_msgs::msg::PointCloud2>(
      "loop_closures", rclcpp::QoS(50).reliable(),
      [this](const sensor_msgs::msg::PointCloud2::ConstSharedPtr msg) {
        try {
          for (const LoopClosure & row : readLoopClosures(*msg)) {
            RCLCPP_INFO(
              get_logger(), "%s: %" PRId64 " ns shows the place of %" PRId64 " ns (score %.2f, %" PRId32 " inliers)",
              row.same_session ? "loop closed" : "relocalised", row.query, row.match, row.score, row.inliers);
          }
        } catch (const std::runtime_error & error) {  // somebody else publishes on the topic
          RCLCPP_WARN(get_logger(), "message skipped: %s", error.what());
        }
      });
  }

private:
  rclcpp::Subscription<sensor_msgs::msg::PointCloud2>::SharedPtr subscription_;
};

int main(int argc, char ** argv)
{
  rclcpp::init(argc, argv);
  rclcpp::spin(std::make_shared<ClosurePrinter>());
  rclcpp::shutdown();
  return 0;
}
