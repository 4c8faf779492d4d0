// SPDX-License-Identifier: Apache-2.0
#include "epipolar.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace binvpr {
namespace {

constexpr std::size_t kSample = 7;       // matches that leave no more than three geometries
constexpr std::size_t kFewest = 8;       // of which there is one geometry
constexpr int kMostIterations = 500;
constexpr double kMayBeMissed = 0.01;    // the chance that no sample was free of outliers
constexpr int kRefinements = 6;          // rounds of a local optimization
constexpr double kWidest = 2;            // tolerances within which the first of them takes matches, and the last within one
constexpr float kScored = 1.5F;          // tolerances up to which distances tell geometries apart
constexpr int kInverseIterations = 4;
constexpr double kShift = 1e-12;         // of a matrix's trace, so that it can be decomposed
constexpr std::size_t kLanes = 8;        // matches that a loop takes at a time

using Matrix = std::array<double, 9>;  // 3x3, row by row

double determinant(const Matrix& m) {
  return m[0] * (m[4] * m[8] - m[5] * m[7]) - m[1] * (m[3] * m[8] - m[5] * m[6]) + m[2] * (m[3] * m[7] - m[4] * m[6]);
}

// Of one matrix's cofactors and another's entries: the derivative of the determinant in the direction of the latter.
double cofactors_times(const Matrix& m, const Matrix& other) {
  return (m[4] * m[8] - m[5] * m[7]) * other[0] + (m[5] * m[6] - m[3] * m[8]) * other[1] +
         (m[3] * m[7] - m[4] * m[6]) * other[2] + (m[2] * m[7] - m[1] * m[8]) * other[3] +
         (m[0] * m[8] - m[2] * m[6]) * other[4] + (m[1] * m[6] - m[0] * m[7]) * other[5] +
         (m[1] * m[5] - m[2] * m[4]) * other[6] + (m[2] * m[3] - m[0] * m[5]) * other[7] +
         (m[0] * m[4] - m[1] * m[3]) * other[8];
}

// A cubic c[0] + c[1] x + c[2] x^2 + c[3] x^3.
struct Cubic {
  static constexpr int kMostSteps = 60;

  std::array<double, 4> c;

  double at(double x) const { return c[0] + x * (c[1] + x * (c[2] + x * c[3])); }

  // Of an interval at whose ends the signs differ: Newton's steps, and halving where they would leave it.
  double root(double low, double high) const {
    const bool rises = at(low) < 0;
    double x = 0.5 * (low + high);
    for (int i = 0; i < kMostSteps; ++i) {
      const double value = at(x), slope = c[1] + x * (2 * c[2] + x * 3 * c[3]);
      ((value < 0) == rises ? low : high) = x;
      const double next = x - value / slope;
      if (next == x) break;
      x = next > low && next < high ? next : 0.5 * (low + high);
    }
    return x;
  }

  // Writes the real roots and returns how many there are.
  int roots(double* found) const {
    if (!(std::abs(c[3]) > 1e-12 * (std::abs(c[0]) + std::abs(c[1]) + std::abs(c[2])))) return 0;
    // No root is larger (Cauchy).
    const double bound = 1 + std::max({std::abs(c[0]), std::abs(c[1]), std::abs(c[2])}) / std::abs(c[3]);
    std::array<double, 4> ends = {-bound, bound, bound, bound};
    int intervals = 1;
    const double discriminant = c[2] * c[2] - 3 * c[3] * c[1];
    if (discriminant > 0) {  // between extremes it rises or falls
      const double step = std::sqrt(discriminant) / std::abs(3 * c[3]), middle = -c[2] / (3 * c[3]);
      ends = {-bound, middle - step, middle + step, bound};
      intervals = 3;
    }
    int count = 0;
    for (int i = 0; i < intervals; ++i) {
      if ((at(ends[i]) < 0) != (at(ends[i + 1]) < 0)) found[count++] = root(ends[i], ends[i + 1]);
    }
    return count;
  }
};

// Brings a vector nearer to the eigenvector of the least eigenvalue of a symmetric matrix, whose upper half is given and
// used up, without negative eigenvalues (inverse iteration, by the Cholesky decomposition).
void towards_least_eigenvector(double (&matrix)[9][9], Matrix& vector) {
  double trace = 0;
  for (std::size_t i = 0; i < 9; ++i) trace += matrix[i][i];
  double(&upper)[9][9] = matrix;  // times its transpose it is the matrix
  for (std::size_t i = 0; i < 9; ++i) {
    double pivot = upper[i][i] + kShift * trace;
    for (std::size_t k = 0; k < i; ++k) pivot -= upper[k][i] * upper[k][i];
    upper[i][i] = std::sqrt(std::max(pivot, kShift * trace));
    for (std::size_t j = i + 1; j < 9; ++j) {
      double entry = upper[i][j];
      for (std::size_t k = 0; k < i; ++k) entry -= upper[k][i] * upper[k][j];
      upper[i][j] = entry / upper[i][i];
    }
  }
  for (int round = 0; round < kInverseIterations; ++round) {
    for (std::size_t i = 0; i < 9; ++i) {
      for (std::size_t k = 0; k < i; ++k) vector[i] -= upper[k][i] * vector[k];
      vector[i] /= upper[i][i];
    }
    double norm = 0;
    for (std::size_t i = 9; i-- > 0;) {
      for (std::size_t k = i + 1; k < 9; ++k) vector[i] -= upper[i][k] * vector[k];
      vector[i] /= upper[i][i];
      norm += vector[i] * vector[i];
    }
    for (double& entry : vector) entry /= std::sqrt(norm);
  }
}

// The eigenvectors of a symmetric matrix [N][N], as columns, and its eigenvalues on the diagonal (Jacobi's method).
template <std::size_t N>
void diagonalize(double (&matrix)[N][N], double (&vectors)[N][N]) {
  for (std::size_t i = 0; i < N; ++i) {
    for (std::size_t j = 0; j < N; ++j) vectors[i][j] = i == j;
  }
  for (int sweep = 0; sweep < 12; ++sweep) {
    double off = 0, on = 0;
    for (std::size_t i = 0; i < N; ++i) {
      on += matrix[i][i] * matrix[i][i];
      for (std::size_t j = i + 1; j < N; ++j) off += matrix[i][j] * matrix[i][j];
    }
    if (off <= 1e-24 * on) return;
    for (std::size_t p = 0; p < N; ++p) {
      for (std::size_t q = p + 1; q < N; ++q) {
        if (matrix[p][q] == 0) continue;
        const double theta = (matrix[q][q] - matrix[p][p]) / (2 * matrix[p][q]);
        const double t = (theta < 0 ? -1 : 1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double cosine = 1 / std::sqrt(t * t + 1), sine = t * cosine;
        for (std::size_t k = 0; k < N; ++k) {
          const double a = matrix[k][p], b = matrix[k][q];
          matrix[k][p] = cosine * a - sine * b;
          matrix[k][q] = sine * a + cosine * b;
        }
        for (std::size_t k = 0; k < N; ++k) {
          const double a = matrix[p][k], b = matrix[q][k];
          matrix[p][k] = cosine * a - sine * b;
          matrix[q][k] = sine * a + cosine * b;
        }
        for (std::size_t k = 0; k < N; ++k) {
          const double a = vectors[k][p], b = vectors[k][q];
          vectors[k][p] = cosine * a - sine * b;
          vectors[k][q] = sine * a + cosine * b;
        }
      }
    }
  }
}

template <std::size_t N>
std::size_t least_eigenvalue(const double (&matrix)[N][N]) {
  std::size_t least = 0;
  for (std::size_t i = 1; i < N; ++i) least = matrix[i][i] < matrix[least][least] ? i : least;
  return least;
}

// The nearest matrix of rank two.
Matrix of_rank_two(const Matrix& m) {
  double product[3][3] = {}, vectors[3][3];
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 3; ++k) product[i][j] += m[3 * k + i] * m[3 * k + j];
    }
  }
  diagonalize(product, vectors);
  const std::size_t least = least_eigenvalue(product);
  Matrix result = m;
  for (int row = 0; row < 3; ++row) {
    double along = 0;
    for (int k = 0; k < 3; ++k) along += m[3 * row + k] * vectors[k][least];
    for (int k = 0; k < 3; ++k) result[3 * row + k] -= along * vectors[k][least];
  }
  return result;
}

// Matches, around their middle and in units of about half of an image, filled up to whole lanes.
class Matches {
 public:
  Matches(const float* here, const float* there, std::size_t count) : count_(count) {
    double middle[4] = {}, spread = 0;
    const auto at = [&](std::size_t i, int axis) {
      return static_cast<double>(axis < 2 ? here[2 * i + axis] : there[2 * i + axis - 2]);
    };
    for (std::size_t i = 0; i < count; ++i) {
      for (int axis = 0; axis < 4; ++axis) middle[axis] += at(i, axis) / static_cast<double>(count);
    }
    for (std::size_t i = 0; i < count; ++i) {
      for (int axis = 0; axis < 4; ++axis) spread += (at(i, axis) - middle[axis]) * (at(i, axis) - middle[axis]);
    }
    unit_ = std::sqrt(spread / (2 * static_cast<double>(count)));
    for (int axis = 0; axis < 4; ++axis) {
      of_axis_[axis].resize((count + kLanes - 1) / kLanes * kLanes);
      for (std::size_t i = 0; i < of_axis_[axis].size(); ++i) {
        of_axis_[axis][i] = static_cast<float>((at(std::min(i, count - 1), axis) - middle[axis]) / unit_);
      }
    }
  }

  std::size_t count() const { return count_; }
  double unit() const { return unit_; }

  // Writes the squared Sampson distances, for whole lanes too, and returns their sum, where larger ones than `most` count
  // as that.
  double distances(const Matrix& f, float most, float* squared) const {
    float m[9];
    for (int i = 0; i < 9; ++i) m[i] = static_cast<float>(f[i]);
    const float *x = of_axis_[0].data(), *y = of_axis_[1].data(), *u = of_axis_[2].data(), *v = of_axis_[3].data();
    float sums[kLanes] = {};
    for (std::size_t first = 0; first < of_axis_[0].size(); first += kLanes) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        const std::size_t i = first + lane;
        const float a = m[0] * x[i] + m[1] * y[i] + m[2], b = m[3] * x[i] + m[4] * y[i] + m[5];
        const float c = m[6] * x[i] + m[7] * y[i] + m[8];
        const float d = m[0] * u[i] + m[3] * v[i] + m[6], e = m[1] * u[i] + m[4] * v[i] + m[7];
        const float off = u[i] * a + v[i] * b + c;
        squared[i] = off * off / (a * a + b * b + d * d + e * e + 1e-20F);
        sums[lane] += std::min(squared[i], most);
      }
    }
    double sum = 0;
    for (const float part : sums) sum += static_cast<double>(part);
    return sum - static_cast<double>(of_axis_[0].size() - count_) * static_cast<double>(std::min(squared[count_ - 1], most));
  }

  // The row of the equation that a match sets for the nine entries of a geometry.
  void equation(std::size_t i, double* row) const {
    const double x = at(0, i), y = at(1, i), u = at(2, i), v = at(3, i);
    const double entries[9] = {u * x, u * y, u, v * x, v * y, v, x, y, 1};
    std::copy_n(entries, 9, row);
  }

 private:
  double at(int axis, std::size_t i) const { return static_cast<double>(of_axis_[axis][i]); }

  std::size_t count_;
  double unit_ = 1;
  std::vector<float> of_axis_[4];  // x and y here, x and y there
};

// The geometries, three at most, that seven matches obey.
int solve(const Matches& matches, const std::array<std::size_t, kSample>& sample, Matrix* found) {
  double rows[kSample][9];
  for (std::size_t i = 0; i < kSample; ++i) matches.equation(sample[i], rows[i]);
  std::size_t pivots[kSample];
  bool is_pivot[9] = {};
  for (std::size_t step = 0; step < kSample; ++step) {
    std::size_t row = step, column = 0;
    double largest = 0;
    for (std::size_t i = step; i < kSample; ++i) {
      for (std::size_t j = 0; j < 9; ++j) {
        if (!is_pivot[j] && std::abs(rows[i][j]) > largest) largest = std::abs(rows[i][j]), row = i, column = j;
      }
    }
    if (largest < 1e-9) return 0;
    std::swap(rows[step], rows[row]);
    pivots[step] = column;
    is_pivot[column] = true;
    const double pivot = rows[step][column];
    for (double& entry : rows[step]) entry /= pivot;
    for (std::size_t i = 0; i < kSample; ++i) {
      const double factor = i == step ? 0 : rows[i][column];
      if (factor == 0) continue;
      for (std::size_t j = 0; j < 9; ++j) rows[i][j] -= factor * rows[step][j];
    }
  }
  Matrix basis[2] = {};
  int free = 0;
  for (std::size_t j = 0; j < 9; ++j) {
    if (is_pivot[j]) continue;
    basis[free][j] = 1;
    for (std::size_t i = 0; i < kSample; ++i) basis[free][pivots[i]] = -rows[i][j];
    ++free;
  }
  // basis[0] + root * basis[1] has no inverse.
  const Cubic cubic{{determinant(basis[0]), cofactors_times(basis[0], basis[1]), cofactors_times(basis[1], basis[0]),
                     determinant(basis[1])}};
  double roots[3];
  const int count = cubic.roots(roots);
  for (int k = 0; k < count; ++k) {
    double norm = 0;
    for (std::size_t j = 0; j < 9; ++j) {
      found[k][j] = basis[0][j] + roots[k] * basis[1][j];
      norm += found[k][j] * found[k][j];
    }
    for (double& entry : found[k]) entry /= std::sqrt(norm);
  }
  return count;
}

// Fits a geometry to the matches within `most` of it, in least squares of Sampson distances; false where there are too few.
bool fit(const Matches& matches, const float* squared, float most, Matrix& geometry) {
  const Matrix last = geometry;
  double normal[9][9] = {};
  std::size_t used = 0;
  for (std::size_t i = 0; i < matches.count(); ++i) {
    if (!(squared[i] <= most)) continue;
    double row[9];
    matches.equation(i, row);
    const double x = row[6], y = row[7], u = row[2], v = row[5];
    const double a = last[0] * x + last[1] * y + last[2], b = last[3] * x + last[4] * y + last[5];
    const double d = last[0] * u + last[3] * v + last[6], e = last[1] * u + last[4] * v + last[7];
    const double weight = 1 / (a * a + b * b + d * d + e * e + 1e-12);
    for (std::size_t p = 0; p < 9; ++p) {
      for (std::size_t q = p; q < 9; ++q) normal[p][q] += weight * row[p] * row[q];
    }
    ++used;
  }
  if (used < kFewest) return false;
  towards_least_eigenvector(normal, geometry);
  geometry = of_rank_two(geometry);
  return true;
}

class Ransac {
 public:
  Ransac(const Matches& matches, float most)
      : matches_(matches),
        most_(most),
        squared_((matches.count() + kLanes - 1) / kLanes * kLanes),
        best_squared_(squared_.size()) {}

  // The squared distances from the best geometry; null where none was found.
  const float* run() {
    double missed = 1;
    for (int iteration = 0; iteration < kMostIterations && missed > kMayBeMissed; ++iteration) {
      Matrix found[3];
      const int count = solve(matches_, sample(), found);
      bool better = false;
      for (int i = 0; i < count; ++i) better = take(found[i]) || better;
      if (better) {
        optimize();
        missed = 1;
        for (int past = 0; past <= iteration; ++past) missed *= chance_to_miss();
      } else {
        missed *= chance_to_miss();
      }
    }
    return best_cost_ < kNone ? best_squared_.data() : nullptr;
  }

 private:
  static constexpr double kNone = std::numeric_limits<double>::max();

  std::uint32_t random() {  // xorshift (Marsaglia, 2003)
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    state_ ^= state_ << 5;
    return state_;
  }

  std::array<std::size_t, kSample> sample() {
    std::array<std::size_t, kSample> chosen{};
    for (std::size_t i = 0; i < kSample;) {
      chosen[i] = random() % matches_.count();
      const auto end = chosen.begin() + static_cast<std::ptrdiff_t>(i);
      if (std::find(chosen.begin(), end, chosen[i]) == end) ++i;
    }
    return chosen;
  }

  bool take(const Matrix& geometry) {
    const double cost = matches_.distances(geometry, kScored * kScored * most_, squared_.data());
    if (!(cost < best_cost_)) return false;
    best_ = geometry;
    best_cost_ = cost;
    best_squared_.swap(squared_);
    return true;
  }

  // From matches far off to near ones.
  void optimize() {
    Matrix geometry = best_;
    std::vector<float> squared = best_squared_;
    for (int round = 0; round < kRefinements; ++round) {
      const double wide = kWidest - (kWidest - 1) * round / (kRefinements - 1);
      if (!fit(matches_, squared.data(), static_cast<float>(wide * wide) * most_, geometry)) return;
      take(geometry);
      matches_.distances(geometry, most_, squared.data());  // `take` has given its own away
    }
  }

  double chance_to_miss() const {
    if (!(best_cost_ < kNone)) return 1;
    const auto near = std::count_if(best_squared_.begin(), best_squared_.begin() + static_cast<std::ptrdiff_t>(matches_.count()),
                                    [this](float squared) { return squared <= most_; });
    const double share = static_cast<double>(near) / static_cast<double>(matches_.count());
    return 1 - share * share * share * share * share * share * share;
  }

  const Matches& matches_;
  float most_;
  std::uint32_t state_ = 2463534242U;
  Matrix best_{};
  double best_cost_ = kNone;
  std::vector<float> squared_, best_squared_;
};

}  // namespace

std::size_t epipolar_inliers(const float* here, const float* there, std::size_t count, float tolerance,
                             std::uint8_t* inliers) {
  std::fill_n(inliers, count, std::uint8_t{0});
  if (count < kFewest) return 0;
  const Matches matches(here, there, count);
  if (!(matches.unit() > 0)) return 0;
  const double unit = static_cast<double>(tolerance) / matches.unit();
  const auto most = static_cast<float>(unit * unit);
  Ransac ransac(matches, most);
  const float* squared = ransac.run();
  std::size_t found = 0;
  for (std::size_t i = 0; squared != nullptr && i < count; ++i) found += inliers[i] = squared[i] <= most;
  return found;
}

}  // namespace binvpr
