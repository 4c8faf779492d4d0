// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace binvpr {

// Shares numbered pieces of work among the calling thread and `threads - 1` others.
//
// Pieces are claimed from a counter, and the caller waits only for pieces that somebody has begun: a helper that the
// system has not scheduled costs nothing. (With fixed shares and a barrier, one busy core made a network seven times
// slower.) Helpers stay awake for a moment after a piece, since the next layer follows at once, and then sleep.
class ThreadPool {
 public:
  explicit ThreadPool(int threads) {
    try {
      for (int i = 1; i < threads; ++i) helpers_.emplace_back([this] { help(); });
    } catch (const std::exception&) {  // the system has no more; those that are there do the work
    }
  }

  ~ThreadPool() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& helper : helpers_) helper.join();
  }

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(helpers_.size()) + 1; }

  // Calls work(0) ... work(pieces - 1), in any order and from any of the threads. `work` must not throw. One caller at
  // a time.
  void run(int pieces, const std::function<void(int)>& work) {
    if (helpers_.empty() || pieces < 2) {
      for (int piece = 0; piece < pieces; ++piece) work(piece);
      return;
    }
    work_ = &work;
    pieces_ = pieces;
    next_ = 0;
    ++job_;  // odd: open
    if (sleepers_ > 0) {
      { const std::lock_guard<std::mutex> lock(mutex_); }
      wake_.notify_all();
    }
    claim(work, pieces);
    ++job_;  // even: closed; a helper that comes now sees it and leaves
    while (inside_ > 0) std::this_thread::yield();
  }

 private:
  static constexpr std::chrono::microseconds kStayAwake{100};

  void claim(const std::function<void(int)>& work, int pieces) {
    for (int piece = next_++; piece < pieces; piece = next_++) work(piece);
  }

  void help() {
    auto awake_until = std::chrono::steady_clock::now() + kStayAwake;
    unsigned seen = 0;
    while (true) {
      const unsigned job = job_;
      if (job % 2 == 1 && job != seen) {
        seen = job;
        ++inside_;
        // Sequential consistency: either this sees that the job was closed, or run() sees this helper inside.
        if (job_ == job) claim(*work_, pieces_);
        --inside_;
        awake_until = std::chrono::steady_clock::now() + kStayAwake;
      } else if (std::chrono::steady_clock::now() < awake_until) {
        std::this_thread::yield();
      } else {
        std::unique_lock<std::mutex> lock(mutex_);
        ++sleepers_;
        wake_.wait(lock, [&] { return stop_ || (job_ % 2 == 1 && job_ != seen); });
        --sleepers_;
        if (stop_) return;
      }
    }
  }

  const std::function<void(int)>* work_ = nullptr;
  int pieces_ = 0;
  std::atomic<int> next_{0};
  std::atomic<unsigned> job_{0};
  std::atomic<int> inside_{0};
  std::atomic<int> sleepers_{0};
  bool stop_ = false;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> helpers_;
};

}  // namespace binvpr
