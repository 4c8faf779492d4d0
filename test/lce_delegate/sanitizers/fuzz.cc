// SPDX-License-Identifier: Apache-2.0
// Looks for what crashes the delegate. Compiled with its sources and a sanitizer: see test_sanitizers.py.
//
//   fuzz CHECK SECONDS [SEED]
//
// CHECK is one of those in main(). Case after case is drawn from SEED, SEED + 1 ... for so many SECONDS; with 0 seconds
// it is the one case of SEED, which is how to see a failure again.
#include <chrono>
#include <cinttypes>
#include <csignal>
#include <new>
#include <thread>

#include "options.h"
#include "random_models.h"
#include "refusal.h"
#include "thread_pool.h"

extern "C" {
// However a sanitizer ends the process, it raises the signal that prints the seed.
const char* __asan_default_options() { return "abort_on_error=1"; }
const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }
const char* __tsan_default_options() { return "abort_on_error=1:halt_on_error=1"; }

tflite_abi::Delegate* tflite_plugin_create_delegate(const char* const*, const char* const*, std::size_t,
                                                    void (*)(const char*));
void tflite_plugin_destroy_delegate(tflite_abi::Delegate*);
const char* binvpr_lce_kernels();
bool binvpr_lce_hamming(const char*, const std::uint8_t*, std::size_t, std::size_t, const std::uint8_t*, std::size_t,
                        std::uint32_t*);
bool binvpr_lce_nearest_two(const char*, const std::uint8_t*, std::size_t, const std::uint8_t*, std::size_t, std::size_t,
                            std::int32_t*, std::uint16_t*, std::uint16_t*, std::int32_t*);
bool binvpr_lce_shrink(const std::uint8_t*, std::size_t, std::size_t, std::size_t, std::size_t, std::size_t, std::uint8_t*);
std::int64_t binvpr_lce_decode_features(const char*, std::size_t, std::size_t, std::size_t, const std::int8_t*,
                                        const std::int8_t*, const std::int8_t*, std::size_t, std::size_t, std::size_t,
                                        float*, float*, std::uint8_t*);
}

// Memory that runs out when a check wants it to. Where GCC sees through one of the two, it takes free() for a mistake.
__attribute__((noinline)) void* operator new(std::size_t size) {
  fake::Allocations& allocations = fake::allocations;
  if (allocations.counted && ++allocations.count == allocations.fails) throw std::bad_alloc();
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}

__attribute__((noinline)) void operator delete(void* memory) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, std::size_t /*size*/) noexcept { std::free(memory); }

namespace {

using fake::Bytes;
using fake::Model;
using fake::Random;
using fake::Runtime;

const char* check_name = "";
std::uint64_t seed = 0;

void print_seed(int /*signal*/) { std::fprintf(stderr, "To see it again: fuzz %s 0 %" PRIu64 "\n", check_name, seed); }

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::abort();
}

void expect(bool condition, const std::string& what) {
  if (!condition) fail(what);
}

// What is wrong; then what to do.
void expect_sentence(std::string message) {
  if (!message.empty() && message.back() == '\n') message.pop_back();
  bool is_plain = message.size() > 20 && message.size() < 300;
  for (const char letter : message) is_plain = is_plain && letter >= ' ' && letter <= '~';
  expect(is_plain && std::count(message.begin(), message.end(), ';') == 1, "the message is no sentence: " + message);
}

std::vector<std::string> kernels() {
  std::vector<std::string> names = {""};
  for (const char* letter = binvpr_lce_kernels(); *letter != '\0'; ++letter) {
    if (*letter == ' ') {
      names.emplace_back();
    } else {
      names.back() += *letter;
    }
  }
  return names;
}

using Delegate = std::unique_ptr<tflite_abi::Delegate, void (*)(tflite_abi::Delegate*)>;

Delegate make_delegate(const std::string& kernel, int threads) {
  const std::string count = std::to_string(threads);
  const char* const keys[] = {"kernel", "threads"};
  const char* const values[] = {kernel.c_str(), count.c_str()};
  Delegate delegate(tflite_plugin_create_delegate(keys, values, 2, nullptr), tflite_plugin_destroy_delegate);
  expect(delegate != nullptr, "there is no delegate for the kernel " + kernel);
  return delegate;
}

// Options of an operator.

void check_options() {
  Random random(seed);
  fake::Options options;
  for (int left = random.below(9); left > 0; --left) {
    std::string name;
    for (int letters = random.between(1, 20); letters > 0; --letters) name += static_cast<char>('a' + random.below(26));
    options[name] = random.pick({0, 1, -1, 300, fake::kIntMin, fake::kIntMax});
  }
  Bytes bytes = encode(options, random);
  expect(binvpr::read_options(bytes.data(), bytes.size()) == options, "the options are not those that were written");
  if (random.one_in(8)) bytes.clear();
  for (int left = random.between(1, 30); left > 0; --left) {
    damage(bytes, random);
    const std::unique_ptr<std::uint8_t[]> exact(new std::uint8_t[bytes.size()]);
    std::copy(bytes.begin(), bytes.end(), exact.get());
    try {
      binvpr::read_options(exact.get(), bytes.size());
    } catch (const binvpr::Refusal& refusal) {
      expect_sentence(refusal.what());
    }
    if (bytes.size() > 2000) bytes.resize(40);
  }
}

// Whole models: every kernel, any number of threads, fused or not, gives the same bytes.

using Results = std::vector<Bytes>;

Results run_whole(const Model& model, Runtime& runtime, std::size_t size) {
  const auto reported = [&runtime] {
    return runtime.reports().empty() ? std::string("nothing") : runtime.reports()[0];
  };
  for (const int input : model.inputs) runtime.resize(input, model.tensors[static_cast<std::size_t>(input)].dims[size]);
  expect(runtime.allocate(size), "a whole model was refused: " + reported());
  expect(runtime.invoke(), "a whole model did not run: " + reported());
  for (std::size_t i = 0; i < model.tensors.size(); ++i) {
    const int tensor = static_cast<int>(i);
    expect(
        runtime.is_inner(tensor) || model.tensors[i].constant || runtime.dims_of(tensor) == model.tensors[i].dims[size],
        "tensor " + std::to_string(i) + " has the wrong shape");
  }
  Results results;
  for (const int output : model.outputs) results.push_back(runtime.data_of(output));
  return results;
}

Results run_apart(const Model& model, std::size_t size) {
  const Delegate delegate = make_delegate("portable", 1);
  Runtime runtime(model, true, 0x5a);
  expect(runtime.apply(delegate.get()),
         "a whole model was refused: " + (runtime.reports().empty() ? "" : runtime.reports()[0]));
  return run_whole(model, runtime, size);
}

void check_whole() {
  Random random(seed);
  const Model model = fake::Builder(random).build();
  const Results expected[] = {run_apart(model, 0), run_apart(model, 1)};
  for (const std::string& kernel : kernels()) {
    const Delegate delegate = make_delegate(kernel, random.pick({1, 1, 2, 3}));
    Runtime runtime(model, false, 0xa5);
    expect(runtime.apply(delegate.get()), "a whole model was refused by " + kernel);
    for (const std::size_t size : {0, 1, 1, 0}) {
      expect(run_whole(model, runtime, size) == expected[size],
             kernel + " gives other results than each operator apart");
    }
  }
}

// Damaged models run, or are refused in a sentence.

void check_damaged() {
  Random random(seed);
  Model model = fake::Builder(random).build();
  for (int left = random.pick({1, 1, 1, 2, 4}); left > 0; --left) damage(model, random);
  const auto names = kernels();
  const Delegate delegate = make_delegate(names[random.index(names.size())], random.pick({1, 1, 2}));
  const fake::Faults faults{random.one_in(40), random.one_in(40), random.one_in(40)};
  Runtime runtime(model, random.one_in(4), 0xa5, faults);
  if (!runtime.apply(delegate.get())) expect(!runtime.reports().empty(), "a model was refused without a word");
  bool runs = runtime.reports().empty();
  for (int left = random.between(1, 3); runs && left > 0; --left) {
    runs = runtime.allocate(0) && runtime.invoke();
    fake::Dims dims = runtime.dims_of(model.inputs[0]);
    switch (random.below(4)) {
      case 0:
        dims.clear();
        break;
      case 1:
        dims.push_back(random.between(1, 3));
        break;
      default:
        for (int& size : dims)
          size = random.pick({size, size, 1, 2, 30, 0, -1, 1 << 14, 1 << 20, 1 << 30, fake::kIntMax});
    }
    runtime.resize(model.inputs[0], dims);
  }
  for (const std::string& report : runtime.reports()) expect_sentence(report);
}

// Where memory runs out the delegate says so, and goes on where there is memory again, in this runtime and the next.

void check_starved() {
  Random random(seed);
  const Model model = fake::Builder(random).build();
  const Results expected = run_apart(model, 0);
  const auto names = kernels();
  const Delegate delegate = make_delegate(names[random.index(names.size())], random.pick({1, 2}));
  long before_invoke = 0;
  bool applied = false;
  const auto run = [&](Runtime& runtime, long fails) {
    fake::allocations = {false, 0, fails};
    applied = runtime.apply(delegate.get()) && runtime.reports().empty();
    bool runs = applied && runtime.allocate(0);
    before_invoke = fake::allocations.count;
    runs = runs && runtime.invoke();
    fake::allocations.fails = 0;
    return runs;
  };
  const auto expect_results = [&](const Runtime& runtime) {
    for (std::size_t i = 0; i < model.outputs.size(); ++i) {
      expect(runtime.data_of(model.outputs[i]) == expected[i], "a whole model has other results than before");
    }
  };
  Runtime whole(model, false, 0xa5);
  expect(run(whole, 0), "a whole model did not run");
  const long all = fake::allocations.count;
  std::vector<long> fail;
  for (long number = before_invoke; number < all; ++number) fail.push_back(number + 1);
  for (int left = 8; left > 0; --left) fail.push_back(1 + static_cast<long>(random.index(static_cast<std::size_t>(all))));
  for (const long number : fail) {
    Runtime runtime(model, false, 0xa5);
    expect(!run(runtime, number), "a model ran without its allocation " + std::to_string(number));
    expect(!runtime.reports().empty(), "a model was refused without a word");
    for (const std::string& report : runtime.reports()) expect_sentence(report);
    if (!applied) continue;
    expect(runtime.allocate(0) && runtime.invoke(), "a model does not run where there is memory again");
    expect_results(runtime);
  }
  Runtime again(model, false, 0xa5);
  expect(run(again, 0), "a whole model does not run any more");
  expect_results(again);
}

// The pool gives out each piece once, and has finished with it when it returns.

void use_pool(std::uint64_t pool_seed) {
  Random random(pool_seed);
  const int threads = random.between(1, 8);
  binvpr::ThreadPool pool(threads);
  for (int left = random.below(random.pick({2, 200})); left > 0; --left) {
    std::vector<int> done(random.index(40), 0);  // plain, so that a thread that is late is a data race
    const int work = random.below(400);
    pool.run(static_cast<int>(done.size()), [&](int piece) {
      for (volatile int i = 0; i < work; i = i + 1) {
      }
      ++done[static_cast<std::size_t>(piece)];
    });
    expect(std::count(done.begin(), done.end(), 1) == static_cast<std::ptrdiff_t>(done.size()),
           "a piece was not done once");
    // About as long as helpers stay awake, so that they are met in all states.
    if (random.one_in(8)) std::this_thread::sleep_for(std::chrono::microseconds(random.below(300)));
  }
}

void check_pool() {
  std::vector<std::thread> users;
  for (std::uint64_t i = 1; i < 3; ++i) users.emplace_back(use_pool, seed + (i << 32));
  use_pool(seed);
  for (std::thread& user : users) user.join();
}

// Two interpreters, each in a thread, share a delegate.

void check_shared() {
  Random random(seed);
  const Model model = fake::Builder(random).build();
  const Results expected[] = {run_apart(model, 0), run_apart(model, 1)};
  const auto names = kernels();
  const Delegate delegate = make_delegate(names[random.index(names.size())], 4);
  const auto use = [&] {
    Runtime runtime(model, false, 0xa5);
    expect(runtime.apply(delegate.get()), "a whole model was refused");
    for (const std::size_t size : {0, 1, 0}) {
      expect(run_whole(model, runtime, size) == expected[size], "a shared delegate gives other results");
    }
  };
  std::thread other(use);
  use();
  other.join();
}

// Distances of descriptors: every kernel reads what is theirs, and gives the same.

std::unique_ptr<std::uint8_t[]> random_bytes(std::size_t size, Random& random) {
  std::unique_ptr<std::uint8_t[]> bytes(new std::uint8_t[size]);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::uint8_t>(random.bits());
  return bytes;
}

void check_hamming() {
  Random random(seed);
  const std::size_t count = random.index(20), words = 1 + random.index(random.one_in(9) ? 400 : 40);
  const std::size_t views = 1 + random.index(4), bytes = 8 * words, offset = random.index(8);
  const auto descriptors = random_bytes(offset + count * bytes, random);
  const auto queries = random_bytes(offset + views * bytes, random);
  std::vector<std::uint32_t> expected(count, UINT32_MAX);
  for (std::size_t i = 0; i < count * views; ++i) {
    std::uint32_t differing = 0;
    for (std::size_t byte = offset; byte < offset + bytes; ++byte) {
      const unsigned other = queries[i % views * bytes + byte];
      differing += static_cast<std::uint32_t>(__builtin_popcount(descriptors[i / views * bytes + byte] ^ other));
    }
    expected[i / views] = std::min(expected[i / views], differing);
  }
  for (const std::string& kernel : kernels()) {
    std::vector<std::uint32_t> found(count);
    expect(binvpr_lce_hamming(kernel.c_str(), &descriptors[offset], count, words, &queries[offset], views,
                              found.data()) &&
               found == expected,
           kernel + " gives other distances");
  }
}

// Rows that are each other's nearest: every kernel finds the same, reads what is theirs, and bears a lack of memory.

struct Found {
  std::vector<std::int32_t> nearest, back;
  std::vector<std::uint16_t> distance, second;

  Found(std::size_t these, std::size_t those)
      : nearest(these, -1), back(those, -1), distance(these, UINT16_MAX), second(these, UINT16_MAX) {}

  bool operator==(const Found& other) const {
    return nearest == other.nearest && back == other.back && distance == other.distance && second == other.second;
  }
};

void check_matching() {
  Random random(seed);
  const std::size_t most = random.one_in(20) ? 4300 : 150;  // more than are compared at a time, or not
  std::size_t counts[] = {random.index(most), random.index(most / 20)};
  if (random.one_in(2)) std::swap(counts[0], counts[1]);
  const std::size_t bytes = 8 * (1 + random.index(8)), offset = random.index(8), distinct = 1 + random.index(most);
  const auto source = random_bytes(distinct * bytes, random);
  std::unique_ptr<std::uint8_t[]> rows[2];
  for (std::size_t side = 0; side < 2; ++side) {
    rows[side].reset(new std::uint8_t[offset + counts[side] * bytes]);
    for (std::size_t i = 0; i < counts[side]; ++i) {
      std::memcpy(&rows[side][offset + i * bytes], &source[random.index(distinct) * bytes], bytes);
    }
  }
  Found expected(counts[0], counts[1]);
  std::vector<std::uint16_t> back_distance(counts[1], UINT16_MAX);
  for (std::size_t i = 0; i < counts[0]; ++i) {
    for (std::size_t j = 0; j < counts[1]; ++j) {
      int bits = 0;
      for (std::size_t byte = offset; byte < offset + bytes; ++byte) {
        bits += __builtin_popcount(static_cast<unsigned>(rows[0][i * bytes + byte] ^ rows[1][j * bytes + byte]));
      }
      const auto distance = static_cast<std::uint16_t>(bits);
      expected.second[i] = std::min(expected.second[i], std::max(expected.distance[i], distance));
      if (distance < expected.distance[i]) {
        expected.distance[i] = distance;
        expected.nearest[i] = static_cast<std::int32_t>(j);
      }
      if (distance < back_distance[j]) {
        back_distance[j] = distance;
        expected.back[j] = static_cast<std::int32_t>(i);
      }
    }
  }
  const auto match = [&](const std::string& kernel, std::size_t words, Found& found, long fails) {
    fake::allocations = {false, 0, fails};
    const fake::Inside inside(true);
    const bool matched = binvpr_lce_nearest_two(kernel.c_str(), &rows[0][offset], counts[0], &rows[1][offset], counts[1],
                                                words, found.nearest.data(), found.distance.data(), found.second.data(),
                                                found.back.data());
    fake::allocations.fails = 0;
    return matched;
  };
  for (const std::string& kernel : kernels()) {
    Found found(counts[0], counts[1]);
    expect(match(kernel, bytes / 8, found, 0) && found == expected, kernel + " finds other rows");
    if (fake::allocations.count > 0) {
      const auto fails = 1 + static_cast<long>(random.index(static_cast<std::size_t>(fake::allocations.count)));
      expect(!match(kernel, bytes / 8, found, fails), kernel + " matched rows without memory");
    }
    expect(!match(kernel, 0, found, 0) && !match(kernel, 9, found, 0), kernel + " matched rows of no or too many words");
  }
}

// Local features: every kernel finds the same, reads and writes what is theirs, and bears a lack of memory. What is
// right test_decode_features.py knows.

struct Decoded {
  std::int64_t count = -1;
  std::unique_ptr<float[]> points, scores;
  std::unique_ptr<std::uint8_t[]> descriptors;
};

void check_decoding() {
  Random random(seed);
  const std::size_t rows = 1 + random.index(8), columns = 1 + random.index(12), bits = 8 * (1 + random.index(40));
  const std::size_t width = 1 + random.index(8 * columns), height = 1 + random.index(8 * rows);
  const std::size_t most = random.pick({1, 5, 50, 1 << 30}), room = std::min(most, width * height);
  const unsigned spread = random.pick({1, 2, 30, 256});  // with few levels many are as good
  const auto map = [&](std::size_t size) {
    std::unique_ptr<std::int8_t[]> values(new std::int8_t[size]);
    for (std::size_t i = 0; i < size; ++i) values[i] = static_cast<std::int8_t>(random.index(spread));
    return values;
  };
  const auto descriptors = map(rows * columns * bits), keypoints = map(rows * columns * 65);
  const auto reliability = map(rows * columns);
  const auto decode = [&](const std::string& kernel, std::size_t some_rows, std::size_t some_bits,
                          std::size_t some_width, std::size_t some_most, long fails) {
    Decoded found;
    found.points.reset(new float[2 * room]);
    found.scores.reset(new float[room]);
    found.descriptors.reset(new std::uint8_t[room * bits / 8]);
    fake::allocations = {false, 0, fails};
    const fake::Inside inside(true);
    found.count = binvpr_lce_decode_features(kernel.c_str(), some_rows, columns, some_bits, descriptors.get(),
                                             keypoints.get(), reliability.get(), some_width, height, some_most,
                                             found.points.get(), found.scores.get(), found.descriptors.get());
    fake::allocations.fails = 0;
    return found;
  };
  const Decoded expected = decode("portable", rows, bits, width, most, 0);
  expect(expected.count >= 0 && expected.count <= static_cast<std::int64_t>(room), "a wrong number of features");
  const auto count = static_cast<std::size_t>(expected.count);
  for (const std::string& kernel : kernels()) {
    const Decoded found = decode(kernel, rows, bits, width, most, 0);
    expect(found.count == expected.count &&
               std::equal(&found.points[0], &found.points[2 * count], &expected.points[0]) &&
               std::equal(&found.scores[0], &found.scores[count], &expected.scores[0]) &&
               std::equal(&found.descriptors[0], &found.descriptors[count * bits / 8], &expected.descriptors[0]),
           kernel + " finds other features");
    expect(fake::allocations.count > 0, kernel + " needs no memory");
    const auto fails = 1 + static_cast<long>(random.index(static_cast<std::size_t>(fake::allocations.count)));
    expect(decode(kernel, rows, bits, width, most, fails).count == -1, kernel + " decoded without memory");
    for (const std::size_t wrong : {std::size_t{0}, std::size_t{4097}}) {
      expect(decode(kernel, wrong, bits, width, most, 0).count == -1, kernel + " decoded no or too many rows");
    }
    for (const std::size_t wrong : {std::size_t{0}, bits + 1, std::size_t{65544}}) {
      expect(decode(kernel, rows, wrong, width, most, 0).count == -1, kernel + " decoded no, odd or too many bits");
    }
    for (const std::size_t wrong : {std::size_t{0}, 8 * columns + 1}) {
      expect(decode(kernel, rows, bits, wrong, most, 0).count == -1, kernel + " decoded no or too many pixels");
    }
    for (const std::size_t wrong : {std::size_t{0}, (std::size_t{1} << 30) + 1}) {
      expect(decode(kernel, rows, bits, width, wrong, 0).count == -1, kernel + " decoded no or too many features");
    }
  }
}

// Images of any size, rows apart, in buffers that end with their last pixel: nothing beside them is read or written, and
// no pixel is darker or brighter than all. That the pixels are right test_shrink.py knows.
void check_shrinking() {
  Random random(seed);
  const std::size_t height = 1 + random.index(60), width = 2 + random.index(60);
  const std::size_t to_height = 1 + random.index(height), to_width = 1 + random.index(width);
  const std::size_t stride = 3 * width + random.index(9), offset = random.index(4), bytes = (height - 1) * stride + 3 * width;
  const auto noise = random_bytes(offset + bytes, random);
  const std::unique_ptr<std::uint8_t[]> image(new std::uint8_t[offset + bytes]);
  std::copy_n(&noise[0], offset + bytes, image.get());
  std::uint8_t darkest = 255, brightest = 0;
  for (std::size_t y = 0; y < height; ++y) {
    const auto [low, high] = std::minmax_element(&image[offset + y * stride], &image[offset + y * stride] + 3 * width);
    darkest = std::min(darkest, *low), brightest = std::max(brightest, *high);
  }
  const std::unique_ptr<std::uint8_t[]> smaller(new std::uint8_t[3 * to_height * to_width]);
  const auto shrink = [&](long fails) {
    fake::allocations = {false, 0, fails};
    const fake::Inside inside(true);
    const bool done = binvpr_lce_shrink(&image[offset], height, width, stride, to_height, to_width, smaller.get());
    fake::allocations.fails = 0;
    return done;
  };
  expect(shrink(0), "an image was not made smaller");
  const auto [low, high] = std::minmax_element(&smaller[0], &smaller[3 * to_height * to_width]);
  expect(darkest <= *low && *high <= brightest, "a pixel of the smaller image is none of its kind");
  const auto fails = 1 + static_cast<long>(random.index(static_cast<std::size_t>(fake::allocations.count)));
  expect(!shrink(fails), "made smaller without memory");
}

}  // namespace

int main(int count, char** arguments) {
  const std::map<std::string, void (*)()> checks = {{"options", check_options},
                                                    {"whole", check_whole},
                                                    {"damaged", check_damaged},
                                                    {"hamming", check_hamming},
                                                    {"matching", check_matching},
                                                    {"decoding", check_decoding},
                                                    {"shrinking", check_shrinking},
                                                    {"starved", check_starved},
                                                    {"pool", check_pool},
                                                    {"shared", check_shared}};
  const auto check = count > 2 ? checks.find(arguments[1]) : checks.end();
  if (check == checks.end()) {
    std::fprintf(stderr, "usage: fuzz options|whole|damaged|starved|hamming|matching|decoding|shrinking|pool|shared SECONDS [SEED]\n");
    return 2;
  }
  check_name = arguments[1];
  const double seconds = std::atof(arguments[2]);
  const std::uint64_t first = count > 3 ? std::strtoull(arguments[3], nullptr, 10) : 1;
  std::signal(SIGABRT, print_seed);
  const auto start = std::chrono::steady_clock::now();
  seed = first;
  do {
    check->second();
    ++seed;
  } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds);
  std::printf("%s: %" PRIu64 " cases from seed %" PRIu64 "\n", check_name, seed - first, first);
}
