// Sums, norms and gates of tokens in one pass; see ZooTokens. A task is a few rows, and a row stays
// in the L1 cache until its result is written.
#pragma once

namespace {

class TokenPass {
 public:
  explicit TokenPass(const ZooTokens& call)
      : call_(call), rows_(call.images * call.tokens), whole_(call.channels / kLanes * kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) keep_[lane] = whole_ + lane < call.channels;
  }

  int run(const Team& team) {
    parallel_for(team, (rows_ + kRows - 1) / kRows, rows_task, this);
    return ZOO_OK;
  }

 private:
  static constexpr int64_t kRows = 64;

  static void rows_task(void* self, int worker, int64_t task) {
    const auto& pass = *static_cast<const TokenPass*>(self);
    const int64_t first = task * kRows, left = pass.rows_ - first;
    for (int64_t row = first; row < first + (left < kRows ? left : kRows); ++row) pass.walk(row);
  }

  void walk(int64_t row) const {
    const int64_t channels = call_.channels;
    const bool narrow = call_.x_dtype == ZOO_BFLOAT16;
    const float* v = narrow ? nullptr : at<Float32>(call_.x, row * call_.x_stride);
    float* out = call_.out != nullptr ? call_.out + row * channels : nullptr;
    if (call_.sum != nullptr || call_.gain != nullptr || call_.skip != nullptr || narrow) {
      float* sum = call_.sum != nullptr ? call_.sum + row * channels : out;
      if (sum != nullptr && narrow) {
        add_up<BFloat16>(row, at<BFloat16>(call_.x, row * call_.x_stride), sum);
      } else if (sum != nullptr) {
        add_up<Float32>(row, v, sum);
      }
      v = sum;
    }
    if (out != nullptr) normalise(row, v, out);
  }

  // Calls `body(first channel, number of channels)` for each vector of a row.
  template <class Body>
  INLINE void each(const TokenPass& pass, Body body) {
    const int64_t whole = pass.whole_;  // local: stored vectors might change what `pass` holds
    const int rest = static_cast<int>(pass.call_.channels - whole);
    for (int64_t c = 0; c < whole; c += kLanes) body(c, kLanes);
    if (rest > 0) body(whole, rest);
  }

  template <class Format>
  void add_up(int64_t row, const typename Format::Type* x, float* sum) const {
    const float* gain =
        call_.gain != nullptr ? call_.gain + row / call_.tokens * call_.channels : nullptr;
    const float* skip = call_.skip != nullptr ? call_.skip + row * call_.skip_stride : nullptr;
    const float* scale = call_.scale;
    each(*this, [=](int64_t c, int width) {
      Vector v = read_lanes<Format>(x + c, width);
      if (gain != nullptr) v = v * read_lanes<Float32>(gain + c, width);
      if (skip != nullptr) {
        const Vector kept = read_lanes<Float32>(skip + c, width);
        v = scale != nullptr ? fma(kept, read_lanes<Float32>(scale + c, width), v) : kept + v;
      }
      write_lanes<Float32>(sum + c, v, width);
    });
  }

  void normalise(int64_t row, const float* v, float* out) const {
    const float *weight = call_.weight, *bias = call_.bias;
    const float* gate = call_.gate != nullptr ? call_.gate + row * call_.gate_stride : nullptr;
    const Vector keep = load(keep_), one = broadcast(1.0f), zero = broadcast(0.0f);
    const float share = 1.0f / static_cast<float>(call_.channels);
    Vector sum = zero, squares = zero;
    each(*this, [&](int64_t c, int width) { sum = sum + read_lanes<Float32>(v + c, width); });
    const Vector mean = broadcast(total(sum) * share);
    each(*this, [&](int64_t c, int width) {
      Vector d = read_lanes<Float32>(v + c, width) - mean;
      if (width != kLanes) d = d * keep;  // the lanes beyond the last channel hold no data
      squares = fma(d, d, squares);
    });
    const Vector scale = broadcast(1.0f / __builtin_sqrtf(total(squares) * share + call_.eps));
    each(*this, [=](int64_t c, int width) {
      Vector n = (read_lanes<Float32>(v + c, width) - mean) * scale;
      n = fma(n, weight != nullptr ? read_lanes<Float32>(weight + c, width) : one,
              bias != nullptr ? read_lanes<Float32>(bias + c, width) : zero);
      if (gate != nullptr) n = n * silu(read_lanes<Float32>(gate + c, width));
      write_lanes<Float32>(out + c, n, width);
    });
  }

  const ZooTokens& call_;
  const int64_t rows_, whole_;  // whole_: channels that fill vectors
  float keep_[kLanes];          // 1 for the channels of the last vector, 0 for its other lanes
};

}  // namespace
