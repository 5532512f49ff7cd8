// Products of factors rounded to bfloat16, summed in float32: twice as fast as in float32, on CPUs
// with an instruction for it (AVX512_BF16). The instruction multiplies pairs of factors that lie side
// by side, so a token's channels are read in pairs, and weights are stored in pairs.
//
// The instruction set of a level does not include it: each function that uses it names it, and is
// called only where the CPU has it.
#pragma once

namespace {

// Two neighbouring channels.
using Pair = uint32_t;

// The pairs of a token's channels; the last one is padded with zero.
INLINE int64_t pairs_of(int64_t channels) { return (channels + 1) / 2; }

#if defined(__AVX512BW__)

#define ZOO_HALF __attribute__((target("avx512bf16")))
constexpr bool kHalfProducts = true;

// Rounds rows of floats to pairs, `pairs_of(channels)` for each row.
ZOO_HALF inline void round_to_pairs(const float* rows, int64_t stride, int64_t channels,
                                    int64_t count, Pair* out) {
  const int64_t pairs = pairs_of(channels);
  for (int64_t i = 0; i < count; ++i, rows += stride, out += pairs) {
    for (int64_t c = 0; c < channels; c += 2 * kLanes) {
      const int64_t left = channels - c, upper = left - kLanes;
      const Vector low = Float32::read(rows + c, left < kLanes ? static_cast<int>(left) : kLanes);
      const int high_count = upper < 0 ? 0 : upper < kLanes ? static_cast<int>(upper) : kLanes;
      const Vector high = Float32::read(rows + c + kLanes, high_count);
      const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
      const int64_t pairs_left = pairs - c / 2;
      _mm512_mask_storeu_epi32(
          out + c / 2, first(pairs_left < kLanes ? static_cast<int>(pairs_left) : kLanes), both);
    }
  }
}

// out (kRows, kVectors W) = bias + in (kRows, pairs) weight (pairs, kVectors W)
template <int kRows, int kVectors>
ZOO_HALF inline void half_block(const Pair* in, int64_t pairs, const Pair* weight,
                                const float* bias, float* out, int64_t out_stride) {
  Vector sum[kRows][kVectors];
  start_sums(sum, bias);
  for (int64_t k = 0; k < pairs; ++k, weight += kVectors * kLanes) {
    __m512bh w[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      w[v] = (__m512bh)_mm512_loadu_si512(weight + v * kLanes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const __m512bh x = (__m512bh)_mm512_set1_epi32(static_cast<int>(in[r * pairs + k]));
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], x, w[v]);
    }
  }
  store_sums(sum, out, out_stride);
}

template <int kVectors>
ZOO_HALF void half_panel(const Pair* in, int64_t pairs, const Pair* weight, const float* bias,
                         float* out, int64_t out_stride, int64_t count) {
  constexpr int kRows = kProductRows;
  int64_t i = 0;
  for (; i + kRows <= count; i += kRows) {
    half_block<kRows, kVectors>(in + i * pairs, pairs, weight, bias, out + i * out_stride,
                                out_stride);
  }
  for (; i < count; ++i) {
    half_block<1, kVectors>(in + i * pairs, pairs, weight, bias, out + i * out_stride, out_stride);
  }
}

#else

// Without the instruction, they would be no faster. These are never called.
constexpr bool kHalfProducts = false;
INLINE void round_to_pairs(const float*, int64_t, int64_t, int64_t, Pair*) {}
template <int kVectors>
void half_panel(const Pair*, int64_t, const Pair*, const float*, float*, int64_t, int64_t) {}

#endif

// Stores rows of weights (outputs, inputs) as (pairs, stride), a lane for each row.
INLINE void pack_pairs(const float* rows, int64_t outputs, int64_t inputs, int64_t stride,
                       Pair* to) {
  constexpr int64_t kChannels = 64;
  Pair rounded[kChannels / 2];
  for (int64_t o = 0; o < outputs; ++o, rows += inputs, ++to) {
    for (int64_t c = 0; c < inputs; c += kChannels) {
      const int64_t left = least(inputs - c, kChannels);
      round_to_pairs(rows + c, 0, left, 1, rounded);
      for (int64_t p = 0; p < pairs_of(left); ++p) to[(c / 2 + p) * stride] = rounded[p];
    }
  }
}

}  // namespace
