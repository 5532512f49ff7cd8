// Elementary functions on vectors, based on the exponential of each level.
#pragma once

namespace {

constexpr float kLog2E = 1.44269504f;

INLINE Vector exp2_product(Vector a, Vector b) {
  Vector power;
  exp2_products<1>(a, &b, &power);
  return power;
}

// 2^(a b) for any product: infinite if it is too large, 0 if it is too small. Slower than the fast
// exponential, whose limits are given where exp2_products is defined.
INLINE Vector exp2_any_product(Vector a, Vector b) {
  const Vector x = at_most(broadcast(250.0f), at_least(broadcast(-250.0f), a * b));
  const Vector root = exp2_product(x, broadcast(0.5f));
  return root * root;
}

// e^-|x|
INLINE Vector exp_minus_magnitude(Vector x) {
  // Beyond the bound, the power is 0 in float32.
  return exp2_product(at_least(broadcast(-150.0f), minus_magnitude(x)), broadcast(kLog2E));
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
INLINE Vector softplus(Vector x) {
  return at_least(broadcast(0.0f), x) + log1p(exp_minus_magnitude(x));
}

// Number of decays computed side by side, for a block of this many states.
constexpr int together(int states) { return states < kInterleave ? states : kInterleave; }

// Exponents step rate within which the fast exponential is right, on every level.
constexpr float kMostGrowth = 126.0f, kMostDecay = 1e18f;

// out[n] = 2^(step rate_n), for any exponents if kAny; kCoarse: see exp2_products. rate: (kMany, W)
template <int kMany, bool kAny, bool kCoarse = false>
INLINE void decays(Vector step, const float* rate, Vector* out) {
  Vector rates[kMany];
#pragma GCC unroll 16
  for (int n = 0; n < kMany; ++n) rates[n] = load(rate + n * kLanes);
  if (kAny) {
#pragma GCC unroll 16
    for (int n = 0; n < kMany; ++n) out[n] = exp2_any_product(step, rates[n]);
  } else {
    exp2_products<kMany, kCoarse>(step, rates, out);
  }
}

// 1 / (1 + e^-x), the derivative of softplus.
INLINE Vector sigmoid(Vector x) {
  const Vector e = exp_minus_magnitude(x);
  const Vector positive = reciprocal(broadcast(1.0f) + e);
  return where_negative(x, e * positive, positive);
}

// Below this, the gates are so small that their products with it are zero in float32, but a level
// may stop at the smallest normal number.
constexpr float kClosed = -1000.0f;

INLINE Vector silu(Vector x) { return at_least(broadcast(kClosed), x) * sigmoid(x); }

// The normal distribution: its probability below x, and its density at x times sqrt(2 pi). That of
// -|x| is t P(t) e^(-x^2 / 2) with t = 1 / (1 + |x| c), to 8e-8 (Abramowitz and Stegun, 7.1.26); it
// is small where x is large.
struct Normal {
  Vector below, density;
  Vector distance;  // |x|, or 20 if it is larger: the density is 0 there
};
INLINE Normal normal(Vector x) {
  const Vector distance = at_most(broadcast(20.0f), broadcast(0.0f) - minus_magnitude(x));
  const Vector t = reciprocal(fma(distance, broadcast(0.231641888f), broadcast(1.0f)));
  Vector p = fma(broadcast(0.530702714f), t, broadcast(-0.726576013f));
  p = fma(p, t, broadcast(0.710706870f));
  p = fma(p, t, broadcast(-0.142248368f));
  p = fma(p, t, broadcast(0.127414796f));
  const Vector density = exp2_product(distance * distance, broadcast(-0.5f * kLog2E));
  const Vector below = p * t * density;
  return {where_negative(x, below, broadcast(1.0f) - below), density, distance};
}

// x times the normal distribution's probability below x.
INLINE Vector gelu(Vector x) { return at_least(broadcast(kClosed), x) * normal(x).below; }

// Derivatives of the activations.
INLINE Vector silu_slope(Vector x) {
  const Vector open = sigmoid(x), kept = at_least(broadcast(kClosed), x);
  return open * fma(kept, broadcast(1.0f) - open, broadcast(1.0f));
}
INLINE Vector gelu_slope(Vector x) {
  const Normal n = normal(x);
  const Vector bounded = where_negative(x, broadcast(0.0f) - n.distance, n.distance);
  return fma(bounded * n.density, broadcast(0.398942280f), n.below);
}

}  // namespace
