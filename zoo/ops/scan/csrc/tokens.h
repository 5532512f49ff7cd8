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
  static constexpr int kTogether = 4;  // rows whose norms are computed side by side

  static void rows_task(void* self, int worker, int64_t task) {
    const auto& pass = *static_cast<const TokenPass*>(self);
    const int64_t first = task * kRows, left = pass.rows_ - first;
    const int64_t end = first + (left < kRows ? left : kRows);
    int64_t row = first;
    for (; row + kTogether <= end; row += kTogether) pass.walk<kTogether>(row);
    for (; row < end; ++row) pass.walk<1>(row);
  }

  // kMany rows: those of a norm wait for sums over lanes, one for each row.
  template <int kMany>
  void walk(int64_t row) const {
    const int64_t channels = call_.channels;
    const bool narrow = call_.x_dtype == ZOO_BFLOAT16;
    const float* v = narrow ? nullptr : at<Float32>(call_.x, row * call_.x_stride);
    int64_t stride = call_.x_stride;
    float* out = call_.out != nullptr ? call_.out + row * channels : nullptr;
    if (call_.sum != nullptr || call_.gain != nullptr || call_.skip != nullptr || narrow) {
      float* sum = call_.sum != nullptr ? call_.sum + row * channels : out;
      for (int i = 0; i < kMany && sum != nullptr; ++i) {
        const int64_t one = row + i;
        if (narrow) {
          add_up<BFloat16>(one, at<BFloat16>(call_.x, one * stride), sum + i * channels);
        } else {
          add_up<Float32>(one, v + i * stride, sum + i * channels);
        }
      }
      v = sum;
      stride = channels;
    }
    if (out != nullptr) normalise<kMany>(row, v, stride, out);
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

  template <int kMany>
  void normalise(int64_t row, const float* v, int64_t stride, float* out) const {
    const float *weight = call_.weight, *bias = call_.bias;
    const int64_t gate_stride = call_.gate_stride, channels = call_.channels;
    const float* gate = call_.gate != nullptr ? call_.gate + row * gate_stride : nullptr;
    const Vector keep = load(keep_), one = broadcast(1.0f), zero = broadcast(0.0f);
    const float share = 1.0f / static_cast<float>(channels), eps = call_.eps;
    Vector sum[kMany], squares[kMany], mean[kMany], scale[kMany];
#pragma GCC unroll 4
    for (int i = 0; i < kMany; ++i) {
      sum[i] = squares[i] = zero;
      mean[i] = broadcast(v[i * stride]);
    }
    // Sums of what each channel has more than the first: the norm of equal channels is exactly 0.
    each(*this, [&](int64_t c, int width) {
#pragma GCC unroll 4
      for (int i = 0; i < kMany; ++i) {
        Vector d = read_lanes<Float32>(v + i * stride + c, width) - mean[i];
        if (width != kLanes) d = d * keep;  // the lanes beyond the last channel hold no data
        sum[i] = sum[i] + d;
      }
    });
#pragma GCC unroll 4
    for (int i = 0; i < kMany; ++i) mean[i] = mean[i] + broadcast(total(sum[i]) * share);
    each(*this, [&](int64_t c, int width) {
#pragma GCC unroll 4
      for (int i = 0; i < kMany; ++i) {
        Vector d = read_lanes<Float32>(v + i * stride + c, width) - mean[i];
        if (width != kLanes) d = d * keep;
        squares[i] = fma(d, d, squares[i]);
      }
    });
#pragma GCC unroll 4
    for (int i = 0; i < kMany; ++i) {
      scale[i] = broadcast(1.0f / __builtin_sqrtf(total(squares[i]) * share + eps));
    }
    each(*this, [&](int64_t c, int width) {
      const Vector factor = weight != nullptr ? read_lanes<Float32>(weight + c, width) : one;
      const Vector added = bias != nullptr ? read_lanes<Float32>(bias + c, width) : zero;
#pragma GCC unroll 4
      for (int i = 0; i < kMany; ++i) {
        Vector n = (read_lanes<Float32>(v + i * stride + c, width) - mean[i]) * scale[i];
        n = fma(n, factor, added);
        if (gate != nullptr) n = n * silu(read_lanes<Float32>(gate + i * gate_stride + c, width));
        write_lanes<Float32>(out + i * channels + c, n, width);
      }
    });
  }

  const ZooTokens& call_;
  const int64_t rows_, whole_;  // whole_: channels that fill vectors
  float keep_[kLanes];          // 1 for the channels of the last vector, 0 for its other lanes
};

}  // namespace
