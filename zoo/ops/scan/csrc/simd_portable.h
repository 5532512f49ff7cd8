// Vectors of 4 channels, by the compilers' vector extension: SSE2 or what the CPU has.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

namespace {

using Vector = float __attribute__((vector_size(16)));
using Bits = int32_t __attribute__((vector_size(16)));
constexpr int kLanes = 4;
#if defined(__aarch64__)
constexpr int kForwardStates = 16;  // states kept in registers at a time
constexpr int kBackwardStates = 8;
#else
constexpr int kForwardStates = 8;
constexpr int kBackwardStates = 4;
#endif
constexpr int kBackwardTiles = 1;  // tiles that go back together
constexpr int kInterleave = 1;  // exponentials computed side by side

INLINE Vector load(const float* p) {
  Vector v;
  memcpy(&v, p, sizeof v);
  return v;
}
INLINE void store(float* p, Vector v) { memcpy(p, &v, sizeof v); }
INLINE Vector broadcast(float x) { return Vector{x, x, x, x}; }
INLINE Vector fma(Vector a, Vector b, Vector c) { return a * b + c; }
INLINE Vector choose(Bits mask, Vector yes, Vector no) {
  return (Vector)((mask & (Bits)yes) | (~mask & (Bits)no));
}
// The larger or smaller of a bound and x; NaN stays NaN.
INLINE Vector at_least(Vector bound, Vector x) {
#if defined(__SSE2__)
  return _mm_max_ps(bound, x);
#else
  return choose(x < bound, bound, x);
#endif
}
INLINE Vector at_most(Vector bound, Vector x) {
#if defined(__SSE2__)
  return _mm_min_ps(bound, x);
#else
  return choose(x > bound, bound, x);
#endif
}
INLINE Vector reciprocal(Vector x) { return broadcast(1.0f) / x; }
INLINE float total(Vector v) { return (v[0] + v[2]) + (v[1] + v[3]); }
INLINE Vector minus_magnitude(Vector x) { return (Vector)((Bits)x | (Bits)broadcast(-0.0f)); }
INLINE Vector where_negative(Vector x, Vector negative, Vector other) {
  return choose((Bits)x < 0, negative, other);
}

// 2^(a b) for several b, for products below 127; results below 2^-126 become 2^-126. The exponent
// is split into an integer and a remainder of at most 1/2. A polynomial gives the power of the
// remainder; it is exact at 0, because slow decays need 1 - 2^x to be as accurate as 2^x. To find
// the integer, a number is added that is so large that the sum has no bits below 1; the bits of the
// integer are then added to the exponent field.
template <int kMany, bool /*kCoarse*/ = false>
INLINE void exp2_products(Vector a, const Vector* b, Vector* out) {
  using Unsigned = uint32_t __attribute__((vector_size(16)));
  const Vector shifter = broadcast(12582912.0f);  // 1.5 * 2^23
#pragma GCC unroll 16
  for (int i = 0; i < kMany; ++i) {
    const Vector x = at_least(broadcast(-126.0f), a * b[i]);
    const Vector shifted = x + shifter;
    const Vector rest = x - (shifted - shifter);
    Vector p = fma(broadcast(0.000154035128f), rest, broadcast(0.00133907355f));
    p = fma(p, rest, broadcast(0.00961823749f));
    p = fma(p, rest, broadcast(0.0555035743f));
    p = fma(p, rest, broadcast(0.240226498f));
    p = fma(p, rest, broadcast(0.693147188f));
    p = fma(p, rest, broadcast(1.0f));
    out[i] = (Vector)((Unsigned)p + ((Unsigned)shifted << 23));
  }
}

// Reads and writes any element type through its scalar conversions.
template <class Format, class Element>
struct Elements {
  using Type = Element;
  INLINE Vector read(const Type* p, int n) {
    Vector v = {};
    for (int i = 0; i < n; ++i) v[i] = Format::widen(p[i]);
    return v;
  }
  INLINE Vector read(const Type* p) { return read(p, kLanes); }
  INLINE void write(Type* p, Vector v, int n) {
    for (int i = 0; i < n; ++i) p[i] = Format::narrow(v[i]);
  }
  INLINE void write(Type* p, Vector v) { write(p, v, kLanes); }
};

INLINE float as_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
INLINE uint32_t as_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

struct Float32 : Elements<Float32, float> {
  using Elements::read;
  using Elements::write;
  INLINE float widen(float x) { return x; }
  INLINE float narrow(float x) { return x; }
  INLINE Vector read(const float* p) { return load(p); }
  INLINE void write(float* p, Vector v) { store(p, v); }
};

struct BFloat16 : Elements<BFloat16, uint16_t> {
  INLINE float widen(uint16_t x) { return as_float(static_cast<uint32_t>(x) << 16); }
  INLINE uint16_t narrow(float x) {
    if (x != x) return 0x7fc0;
    const uint32_t bits = as_bits(x);
    return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
};

struct Float16 : Elements<Float16, uint16_t> {
  INLINE float widen(uint16_t x) {
    const uint32_t sign = static_cast<uint32_t>(x & 0x8000) << 16, magnitude = x & 0x7fff;
    if (magnitude >= 0x7c00) return as_float(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    if (magnitude >= 0x0400) return as_float(sign | ((magnitude << 13) + (112u << 23)));
    const float tiny = static_cast<float>(magnitude) * 0x1p-24f;
    return sign ? -tiny : tiny;
  }
  INLINE uint16_t narrow(float x) {
    const uint32_t sign = (as_bits(x) >> 16) & 0x8000, magnitude = as_bits(x) & 0x7fffffff;
    if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
    if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
    if (magnitude >= 0x38800000) {
      const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
      return static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13));
    }
    // Subnormal halves are multiples of 2^-24: adding 1/2 leaves their count in the low bits.
    return static_cast<uint16_t>(sign | (as_bits(as_float(magnitude) + 0.5f) - 0x3f000000));
  }
};

// out[i] = sum over lanes of the i-th of 16 vectors.
INLINE void sum_lanes_16(const float* vectors, float* out) {
  for (int i = 0; i < 16; ++i) {
    const Vector v = load(vectors + i * kLanes);
    out[i] = (v[0] + v[2]) + (v[1] + v[3]);
  }
}

}  // namespace
