// Elementary functions on vectors, based on the exponential of each level.
#pragma once

namespace {

constexpr float kLog2E = 1.44269504f;

INLINE Vector exp2_product(Vector a, Vector b) {
  Vector power;
  exp2_products<1>(a, &b, &power);
  return power;
}

// e^-|x|
INLINE Vector exp_minus_magnitude(Vector x) {
  return exp2_product(minus_magnitude(x), broadcast(kLog2E));
}

// log(1 + e) for e in [0, 1]: e times a polynomial, which makes it accurate for small e too.
INLINE Vector log1p(Vector e) {
  Vector p = fma(broadcast(0.0052326943f), e, broadcast(-0.0295052389f));
  p = fma(p, e, broadcast(0.0782259521f));
  p = fma(p, e, broadcast(-0.136632458f));
  p = fma(p, e, broadcast(0.191060068f));
  p = fma(p, e, broadcast(-0.248429822f));
  p = fma(p, e, broadcast(0.333190968f));
  p = fma(p, e, broadcast(-0.499994931f));
  p = fma(p, e, broadcast(0.99999997f));
  return p * e;
}

// max(x, 0) + log(1 + e^-|x|): exponents are never positive, so nothing overflows.
INLINE Vector softplus(Vector x) { return positive_part(x) + log1p(exp_minus_magnitude(x)); }

// Number of decays computed side by side, for a block of this many states.
constexpr int together(int states) { return states < kInterleave ? states : kInterleave; }

// out[n] = 2^(step rate_n). rate: (kMany, W)
template <int kMany>
INLINE void decays(Vector step, const float* rate, Vector* out) {
  Vector rates[kMany];
#pragma GCC unroll 16
  for (int n = 0; n < kMany; ++n) rates[n] = load(rate + n * kLanes);
  exp2_products<kMany>(step, rates, out);
}

// 1 / (1 + e^-x), the derivative of softplus.
INLINE Vector sigmoid(Vector x) {
  const Vector e = exp_minus_magnitude(x);
  const Vector positive = broadcast(1.0f) / (broadcast(1.0f) + e);
  return where_negative(x, e * positive, positive);
}

}  // namespace
