// The gain of a channel attention; see ZooGain. The tokens of an image are summed up in parts, whose
// number depends on sizes alone, so the result does not depend on the number of threads.
#pragma once

namespace {

class Gain {
 public:
  explicit Gain(const ZooGain& call)
      : call_(call),
        parts_((call.tokens + kTokens - 1) / kTokens),
        padded_(whole(call.channels)),
        hidden_(whole(call.hidden)) {}

  int run(const Team& team) {
    const int64_t floats = call_.images * (parts_ * padded_ + padded_ + hidden_);
    sums_ = static_cast<float*>(aligned_allocate(floats * sizeof(float), true));
    if (sums_ == nullptr) return ZOO_OUT_OF_MEMORY;
    parallel_for(team, call_.images * parts_, part_task, this);
    parallel_for(team, call_.images, image_task, this);
    aligned_free(sums_);
    return ZOO_OK;
  }

 private:
  static constexpr int64_t kTokens = 256;  // of a part
  static constexpr int kTogether = 4;      // tokens whose sums are apart, so that none waits

  static int64_t whole(int64_t channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

  static void part_task(void* self, int worker, int64_t task) {
    const auto& gain = *static_cast<const Gain*>(self);
    const ZooGain& call = gain.call_;
    const int64_t first = task % gain.parts_ * kTokens, left = call.tokens - first;
    const int64_t count = left < kTokens ? left : kTokens, stride = call.x_stride;
    const float* x = call.x + (task / gain.parts_ * call.tokens + first) * stride;
    float* sums = gain.sums_ + task * gain.padded_;
    each_tile(call.channels, [=](int64_t, int64_t c, int width) {
      Vector sum[kTogether];
      for (int j = 0; j < kTogether; ++j) sum[j] = broadcast(0.0f);
      const float* in = x + c;
      int64_t t = 0;
      for (; t + kTogether <= count; t += kTogether, in += kTogether * stride) {
        for (int j = 0; j < kTogether; ++j) {
          sum[j] = sum[j] + read_lanes<Float32>(in + j * stride, width);
        }
      }
      for (; t < count; ++t, in += stride) sum[0] = sum[0] + read_lanes<Float32>(in, width);
      store(sums + c, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    });
  }

  // The mean, the hidden layer and the gain of an image.
  static void image_task(void* self, int worker, int64_t image) {
    const auto& gain = *static_cast<const Gain*>(self);
    const ZooGain& call = gain.call_;
    const int64_t parts = gain.parts_, padded = gain.padded_;
    const float* sums = gain.sums_ + image * parts * padded;
    float* mean = gain.sums_ + call.images * parts * padded + image * (padded + gain.hidden_);
    float* hidden = mean + padded;
    const Vector share = broadcast(1.0f / static_cast<float>(call.tokens));
    for (int64_t c = 0; c < padded; c += kLanes) {
      Vector sum = broadcast(0.0f);
      for (int64_t part = 0; part < parts; ++part) sum = sum + load(sums + part * padded + c);
      store(mean + c, sum * share);
    }
    for (int64_t h = 0; h < call.hidden; ++h) {
      const float* weight = call.reduce_weight + h * call.channels;
      Vector sum = broadcast(0.0f);
      each_tile(call.channels, [&](int64_t, int64_t c, int width) {
        sum = fma(read_lanes<Float32>(weight + c, width), read_lanes<Float32>(mean + c, width), sum);
      });
      const float value = total(sum) + (call.reduce_bias != nullptr ? call.reduce_bias[h] : 0);
      hidden[h] = value > 0.0f || value != value ? value : 0.0f;  // NaN stays NaN
    }
    float* out = call.out + image * call.channels;
    each_tile(call.channels, [=, &call](int64_t, int64_t first, int width) {
      float raw[kLanes] = {};
      for (int lane = 0; lane < width; ++lane) {
        const int64_t c = first + lane;
        float sum = call.expand_bias != nullptr ? call.expand_bias[c] : 0.0f;
        for (int64_t h = 0; h < call.hidden; ++h) {
          sum += call.expand_weight[c * call.hidden + h] * hidden[h];
        }
        raw[lane] = sum;
      }
      write_lanes<Float32>(out + first, sigmoid(load(raw)), width);
    });
  }

  const ZooGain& call_;
  const int64_t parts_, padded_, hidden_;
  float* sums_ = nullptr;  // (B, parts, padded), then (B, padded + hidden) for means and hidden
};

}  // namespace
