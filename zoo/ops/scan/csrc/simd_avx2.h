// Vectors of 8 channels: AVX2, FMA, F16C.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

namespace {

using Vector = __m256;
constexpr int kLanes = 8;
constexpr int kForwardStates = 8;  // states kept in registers at a time
constexpr int kBackwardStates = 4;
constexpr int kBackwardTiles = 1;  // tiles that go back together
constexpr int kInterleave = 1;  // exponentials computed side by side

INLINE Vector load(const float* p) { return _mm256_loadu_ps(p); }
INLINE void store(float* p, Vector v) { _mm256_storeu_ps(p, v); }
INLINE Vector broadcast(float x) { return _mm256_set1_ps(x); }
INLINE Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
// The larger or smaller of a bound and x; NaN stays NaN, because these instructions return their
// second operand if one is NaN.
INLINE Vector at_least(Vector bound, Vector x) { return _mm256_max_ps(bound, x); }
INLINE Vector at_most(Vector bound, Vector x) { return _mm256_min_ps(bound, x); }
INLINE Vector reciprocal(Vector x) { return broadcast(1.0f) / x; }
INLINE float total(Vector v) {
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
}
INLINE Vector minus_magnitude(Vector x) { return _mm256_or_ps(x, _mm256_set1_ps(-0.0f)); }
INLINE Vector where_negative(Vector x, Vector negative, Vector other) {
  return _mm256_blendv_ps(other, negative, x);
}

// 2^(a b) for several b, for products below 127; results below 2^-126 become 2^-126. The exponent
// is split into a multiple of 1/8, whose power comes from a table, and a remainder of at most 1/16.
// A polynomial gives the power of the remainder; it is exact at 0, because slow decays need 1 - 2^x
// to be as accurate as 2^x. To find the multiple, a number is added that is so large that the sum
// has no bits below 1/8. Its integer bits are added to the exponent field. Its three fraction bits
// are added to the mantissa along with them; the table compensates for this.
template <int kMany, bool /*kCoarse*/ = false>
INLINE void exp2_products(Vector a, const Vector* b, Vector* out) {
  const __m256i eighths = _mm256_setr_epi32(0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7,
                                            0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7);
  const Vector shifter = broadcast(1572864.0f);  // 1.5 * 2^23 / 8
#pragma GCC unroll 16
  for (int i = 0; i < kMany; ++i) {
    const Vector x = at_least(broadcast(-126.0f), a * b[i]);
    const Vector shifted = x + shifter;
    const Vector rest = x - (shifted - shifter);
    const __m256i bits = _mm256_castps_si256(shifted);
    const __m256i entry = _mm256_permutevar8x32_epi32(eighths, bits);
    const Vector power =
        _mm256_castsi256_ps(_mm256_add_epi32(entry, _mm256_slli_epi32(bits, 20)));
    Vector p = fma(broadcast(0.0555041086f), rest, broadcast(0.240254685f));
    p = fma(p, rest, broadcast(0.693147188f));
    out[i] = fma(p, power * rest, power);
  }
}

INLINE __m256i first(int count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane);
}

struct Float32 {
  using Type = float;
  INLINE Vector read(const float* p) { return _mm256_loadu_ps(p); }
  INLINE Vector read(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
  INLINE void write(float* p, Vector v) { _mm256_storeu_ps(p, v); }
  INLINE void write(float* p, Vector v, int n) { _mm256_maskstore_ps(p, first(n), v); }
};

// 16-bit types have no masked load or store: an incomplete vector goes through memory.
template <class Format>
struct Sixteen {
  using Type = uint16_t;
  INLINE Vector read(const Type* p) {
    return Format::widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  INLINE Vector read(const Type* p, int n) {
    Type part[kLanes] = {};
    for (int i = 0; i < n; ++i) part[i] = p[i];
    return read(part);
  }
  INLINE void write(Type* p, Vector v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), Format::narrow(v));
  }
  INLINE void write(Type* p, Vector v, int n) {
    Type part[kLanes];
    write(part, v);
    for (int i = 0; i < n; ++i) p[i] = part[i];
  }
};

struct BFloat16 : Sixteen<BFloat16> {
  INLINE Vector widen(__m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  INLINE __m128i narrow(Vector v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff));
    const __m256 nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    const __m256 quiet = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
    const __m256i rounded =
        _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(up), quiet, nan));
    const __m256i high = _mm256_srli_epi32(rounded, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
  }
};

struct Float16 : Sixteen<Float16> {
  INLINE Vector widen(__m128i bits) { return _mm256_cvtph_ps(bits); }
  INLINE __m128i narrow(Vector v) { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
};

// out[i] = sum over lanes of the i-th of 16 vectors, eight vectors at a time, in three rounds of
// pairwise sums.
INLINE void sum_lanes_16(const float* vectors, float* out) {
  for (int half = 0; half < 2; ++half, vectors += 8 * kLanes, out += 8) {
    Vector v[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) v[i] = load(vectors + i * kLanes);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) v[i] = _mm256_hadd_ps(v[2 * i], v[2 * i + 1]);
    const Vector low = _mm256_hadd_ps(v[0], v[1]), high = _mm256_hadd_ps(v[2], v[3]);
    store(out, _mm256_permute2f128_ps(low, high, 0x20) + _mm256_permute2f128_ps(low, high, 0x31));
  }
}

}  // namespace
