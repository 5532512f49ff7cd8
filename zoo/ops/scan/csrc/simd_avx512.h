// Vectors of 16 channels: AVX-512 F, DQ, BW, VL.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

namespace {

using Vector = __m512;
constexpr int kLanes = 16;
constexpr int kForwardStates = 16;  // states kept in registers at a time
constexpr int kBackwardStates = 4;
constexpr int kBackwardTiles = 2;  // tiles that go back together
constexpr int kInterleave = 2;  // exponentials computed side by side

INLINE Vector load(const float* p) { return _mm512_loadu_ps(p); }
INLINE void store(float* p, Vector v) { _mm512_storeu_ps(p, v); }
INLINE Vector broadcast(float x) { return _mm512_set1_ps(x); }
INLINE Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
// The larger or smaller of a bound and x; NaN stays NaN, because these instructions return their
// second operand if one is NaN.
INLINE Vector at_least(Vector bound, Vector x) { return _mm512_max_ps(bound, x); }
INLINE Vector at_most(Vector bound, Vector x) { return _mm512_min_ps(bound, x); }
// 1 / x for x in [1, 1e30], to two units in the last place.
INLINE Vector reciprocal(Vector x) {
  const Vector guess = _mm512_rcp14_ps(x);
  return guess * _mm512_fnmadd_ps(guess, x, broadcast(2.0f));
}
INLINE float total(Vector v) {
  v = v + _mm512_shuffle_f32x4(v, v, 0x4e);
  v = v + _mm512_shuffle_f32x4(v, v, 0xb1);
  v = v + _mm512_shuffle_ps(v, v, 0x4e);
  v = v + _mm512_shuffle_ps(v, v, 0xb1);
  return _mm512_cvtss_f32(v);
}
INLINE Vector minus_magnitude(Vector x) { return _mm512_or_ps(x, _mm512_set1_ps(-0.0f)); }
INLINE Vector where_negative(Vector x, Vector negative, Vector other) {
  return _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(x)), other, negative);
}

// 2^(a b) for several b, for products from -10^20 to 127. The exponent is split into a multiple of 1/16,
// whose power comes from a table, and a remainder of at most 1/32. A polynomial gives the power of
// the remainder; it is exact at 0, because slow decays need 1 - 2^x to be as accurate as 2^x. To
// find the multiple, a number is added that is so large that the sum has no bits below 1/16. The
// four fraction bits of the multiple select the table entry; scalef applies its integer part. The
// instructions for several b are interleaved, so that none waits for the one before.
//
// kCoarse: a polynomial of one degree less, right to 1.7e-6 of the power. That is for tokens of half
// precision, which are rounded to 5e-4 of their size or more; the other levels have no such form.
template <int kMany, bool kCoarse = false>
INLINE void exp2_products(Vector a, const Vector* b, Vector* out) {
  const Vector sixteenths = _mm512_setr_ps(
      1.0f, 1.04427373f, 1.09050775f, 1.13878858f, 1.18920708f, 1.24185777f, 1.29683959f,
      1.35425556f, 1.41421354f, 1.47682619f, 1.54221082f, 1.61049032f, 1.68179286f, 1.75625217f,
      1.8340081f, 1.91520655f);
  const Vector shifter = broadcast(786432.0f);  // 1.5 * 2^23 / 16
  Vector shifted[kMany], multiple[kMany], rest[kMany], power[kMany], p[kMany];
#define ZOO_EACH _Pragma("GCC unroll 16") for (int i = 0; i < kMany; ++i)
  ZOO_EACH shifted[i] = fma(a, b[i], shifter);
  ZOO_EACH multiple[i] = shifted[i] - shifter;
  ZOO_EACH rest[i] = _mm512_fmsub_ps(a, b[i], multiple[i]);
  ZOO_EACH power[i] = _mm512_permutexvar_ps(_mm512_castps_si512(shifted[i]), sixteenths);
  if (kCoarse) {
    ZOO_EACH p[i] = fma(broadcast(0.240226507f), rest[i], broadcast(0.693147181f));
  } else {
    ZOO_EACH p[i] = fma(broadcast(0.0555041087f), rest[i], broadcast(0.240233551f));
    ZOO_EACH p[i] = fma(p[i], rest[i], broadcast(0.693147181f));
  }
  ZOO_EACH rest[i] = power[i] * rest[i];
  ZOO_EACH p[i] = fma(p[i], rest[i], power[i]);
  ZOO_EACH out[i] = _mm512_scalef_ps(p[i], multiple[i]);
#undef ZOO_EACH
}

INLINE __mmask16 first(int count) { return static_cast<__mmask16>((1u << count) - 1u); }

struct Float32 {
  using Type = float;
  INLINE Vector read(const float* p) { return _mm512_loadu_ps(p); }
  INLINE Vector read(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  INLINE void write(float* p, Vector v) { _mm512_storeu_ps(p, v); }
  INLINE void write(float* p, Vector v, int n) { _mm512_mask_storeu_ps(p, first(n), v); }
};

struct BFloat16 {
  using Type = uint16_t;
  INLINE Vector widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  INLINE __m256i narrow(Vector v) {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i rounded = _mm512_mask_mov_epi32(up, nan, _mm512_set1_epi32(0x7fc00000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
  }
  INLINE Vector read(const Type* p) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  INLINE Vector read(const Type* p, int n) { return widen(_mm256_maskz_loadu_epi16(first(n), p)); }
  INLINE void write(Type* p, Vector v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(v));
  }
  INLINE void write(Type* p, Vector v, int n) { _mm256_mask_storeu_epi16(p, first(n), narrow(v)); }
};

struct Float16 {
  using Type = uint16_t;
  INLINE __m256i narrow(Vector v) {
    return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  INLINE Vector read(const Type* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  INLINE Vector read(const Type* p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p));
  }
  INLINE void write(Type* p, Vector v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(v));
  }
  INLINE void write(Type* p, Vector v, int n) { _mm256_mask_storeu_epi16(p, first(n), narrow(v)); }
};

// out[i] = sum over lanes of the i-th of 16 vectors. Each round halves the number of vectors: the
// sum of two shuffled vectors holds partial sums of both.
INLINE void sum_lanes_16(const float* vectors, float* out) {
  Vector v[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) v[i] = load(vectors + i * kLanes);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    v[i] = _mm512_shuffle_f32x4(v[i], v[i + 8], 0x44) + _mm512_shuffle_f32x4(v[i], v[i + 8], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm512_shuffle_f32x4(v[i], v[i + 4], 0x88) + _mm512_shuffle_f32x4(v[i], v[i + 4], 0xdd);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    v[i] = _mm512_shuffle_ps(v[i], v[i + 2], 0x44) + _mm512_shuffle_ps(v[i], v[i + 2], 0xee);
  }
  v[0] = _mm512_shuffle_ps(v[0], v[1], 0x88) + _mm512_shuffle_ps(v[0], v[1], 0xdd);
  // The rounds have permuted the sums among the lanes: restore their order.
  const __m512i sequence =
      _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
  store(out, _mm512_permutexvar_ps(sequence, v[0]));
}

}  // namespace
