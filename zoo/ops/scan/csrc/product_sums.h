// The sums of a block of a product, which are kept in registers: rows of tokens by vectors of outputs.
#pragma once

namespace {

constexpr int kProductRows = kForwardStates / 2, kProductVectors = 3;

// Each sum starts as the bias of its output.
template <int kRows, int kVectors>
INLINE void start_sums(Vector (&sum)[kRows][kVectors], const float* bias) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) sum[r][v] = load(bias + v * kLanes);
  }
}

// out (kRows, kVectors W) = the sums
template <int kRows, int kVectors>
INLINE void store_sums(const Vector (&sum)[kRows][kVectors], float* out, int64_t stride) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) store(out + r * stride + v * kLanes, sum[r][v]);
  }
}

}  // namespace
