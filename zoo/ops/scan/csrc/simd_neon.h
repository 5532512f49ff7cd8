// Vectors of 4 channels: NEON of 64-bit ARM.
#pragma once

#include <arm_neon.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

namespace {

using Vector = float32x4_t;
constexpr int kLanes = 4;
constexpr int kForwardStates = 16;  // states kept in registers at a time
constexpr int kBackwardStates = 4;
constexpr int kBackwardTiles = 2;  // tiles that go back together
constexpr int kInterleave = 2;  // exponentials computed side by side

INLINE Vector load(const float* p) { return vld1q_f32(p); }
INLINE void store(float* p, Vector v) { vst1q_f32(p, v); }
INLINE Vector broadcast(float x) { return vdupq_n_f32(x); }
INLINE Vector fma(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }
// The larger or smaller of a bound and x; NaN stays NaN, as in all arithmetic of NEON.
INLINE Vector at_least(Vector bound, Vector x) { return vmaxq_f32(bound, x); }
INLINE Vector at_most(Vector bound, Vector x) { return vminq_f32(bound, x); }
INLINE Vector reciprocal(Vector x) { return broadcast(1.0f) / x; }
INLINE float total(Vector v) { return vaddvq_f32(v); }
INLINE Vector minus_magnitude(Vector x) { return vnegq_f32(vabsq_f32(x)); }
INLINE Vector where_negative(Vector x, Vector negative, Vector other) {
  return vbslq_f32(vcltzq_s32(vreinterpretq_s32_f32(x)), negative, other);
}

// 2^(a b) for several b, for products below 127; results below 2^-126 become 2^-126. The exponent
// is split into an integer and a remainder of at most 1/2. A polynomial gives the power of the
// remainder; it is exact at 0, because slow decays need 1 - 2^x to be as accurate as 2^x. To find
// the integer, a number is added that is so large that the sum has no bits below 1; the bits of the
// integer are then added to the exponent field. The instructions for several b are interleaved, so
// that none waits for the one before.
template <int kMany, bool /*kCoarse*/ = false>
INLINE void exp2_products(Vector a, const Vector* b, Vector* out) {
  const Vector shifter = broadcast(12582912.0f);  // 1.5 * 2^23
  Vector shifted[kMany], rest[kMany], p[kMany];
#define ZOO_EACH _Pragma("GCC unroll 16") for (int i = 0; i < kMany; ++i)
  ZOO_EACH rest[i] = at_least(broadcast(-126.0f), vmulq_f32(a, b[i]));
  ZOO_EACH shifted[i] = vaddq_f32(rest[i], shifter);
  ZOO_EACH rest[i] = vsubq_f32(rest[i], vsubq_f32(shifted[i], shifter));
  ZOO_EACH p[i] = fma(broadcast(0.000154035128f), rest[i], broadcast(0.00133907355f));
  ZOO_EACH p[i] = fma(p[i], rest[i], broadcast(0.00961823749f));
  ZOO_EACH p[i] = fma(p[i], rest[i], broadcast(0.0555035743f));
  ZOO_EACH p[i] = fma(p[i], rest[i], broadcast(0.240226498f));
  ZOO_EACH p[i] = fma(p[i], rest[i], broadcast(0.693147188f));
  ZOO_EACH p[i] = fma(p[i], rest[i], broadcast(1.0f));
  ZOO_EACH {
    const int32x4_t exponent = vshlq_n_s32(vreinterpretq_s32_f32(shifted[i]), 23);
    out[i] = vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p[i]), exponent));
  }
#undef ZOO_EACH
}

// Elements of an incomplete vector go through memory: NEON has no masked load or store.
template <class Format, class Element>
struct Elements {
  using Type = Element;
  INLINE Vector read(const Type* p, int n) {
    Type part[kLanes] = {};
    for (int i = 0; i < n; ++i) part[i] = p[i];
    return Format::read(part);
  }
  INLINE void write(Type* p, Vector v, int n) {
    Type part[kLanes];
    Format::write(part, v);
    for (int i = 0; i < n; ++i) p[i] = part[i];
  }
};

struct Float32 : Elements<Float32, float> {
  using Elements::read;
  using Elements::write;
  INLINE Vector read(const float* p) { return load(p); }
  INLINE void write(float* p, Vector v) { store(p, v); }
};

struct BFloat16 : Elements<BFloat16, uint16_t> {
  using Elements::read;
  using Elements::write;
  INLINE Vector read(const Type* p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
  }
  INLINE void write(Type* p, Vector v) {
    const uint32x4_t bits = vreinterpretq_u32_f32(v);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t up = vaddq_u32(vaddq_u32(bits, odd), vdupq_n_u32(0x7fff));
    const uint32x4_t rounded = vbslq_u32(vceqq_f32(v, v), up, vdupq_n_u32(0x7fc00000));
    vst1_u16(p, vshrn_n_u32(rounded, 16));
  }
};

struct Float16 : Elements<Float16, uint16_t> {
  using Elements::read;
  using Elements::write;
  INLINE Vector read(const Type* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  INLINE void write(Type* p, Vector v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
};

// out[i] = sum over lanes of the i-th of 16 vectors, four vectors at a time, by pairwise sums.
INLINE void sum_lanes_16(const float* vectors, float* out) {
  for (int i = 0; i < 16; i += 4, vectors += 4 * kLanes) {
    const Vector low = vpaddq_f32(load(vectors), load(vectors + kLanes));
    const Vector high = vpaddq_f32(load(vectors + 2 * kLanes), load(vectors + 3 * kLanes));
    store(out + i, vpaddq_f32(low, high));
  }
}

}  // namespace
