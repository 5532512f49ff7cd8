// Gradients of a pass over tokens; see ZooTokens. A task is a part of the tokens of one image, and a
// row stays in the L1 cache until all that depends on it is written. Each task sums up what the
// parameters get; then the parts are summed. Their number depends on sizes alone, so the result does
// not depend on the number of threads.
#pragma once

namespace {

class TokenGradients {
 public:
  TokenGradients(const ZooTokens& call, const ZooTokensGradients& gradients)
      : call_(call),
        gradients_(gradients),
        padded_((call.channels + kLanes - 1) / kLanes * kLanes),
        whole_(call.channels / kLanes * kLanes),
        parts_(parts(call)) {
    for (int lane = 0; lane < kLanes; ++lane) keep_[lane] = whole_ + lane < call.channels;
  }

  int run(const Team& team) {
    const int64_t tasks = call_.images * parts_;
    sums_ = static_cast<float*>(aligned_allocate(tasks * task_floats() * sizeof(float), true));
    if (sums_ == nullptr) return ZOO_OUT_OF_MEMORY;
    parallel_for(team, tasks, rows_task, this);
    for (int64_t image = 0; image < call_.images; ++image) {
      add_up_parts(kGain, image * parts_, parts_, gradients_.gain, image * call_.channels);
    }
    add_up_parts(kScale, 0, tasks, gradients_.scale, 0);
    add_up_parts(kWeight, 0, tasks, gradients_.weight, 0);
    add_up_parts(kBias, 0, tasks, gradients_.bias, 0);
    aligned_free(sums_);
    return ZOO_OK;
  }

 private:
  // Sums of a task, each (padded channels), and a row of its own.
  enum { kGain, kScale, kWeight, kBias, kRow, kRows };
  static constexpr int64_t kTasks = 16, kTokensOfTask = 32;

  static int64_t parts(const ZooTokens& call) {
    const int64_t most = (call.tokens + kTokensOfTask - 1) / kTokensOfTask;
    const int64_t wanted = kTasks / call.images;
    return wanted < 1 ? 1 : wanted < most ? wanted : most;
  }
  int64_t task_floats() const { return kRows * padded_; }

  static void rows_task(void* self, int worker, int64_t task) {
    const auto& pass = *static_cast<const TokenGradients*>(self);
    const int64_t part = task % pass.parts_, tokens = pass.call_.tokens;
    const int64_t first = task / pass.parts_ * tokens;
    float* sums = pass.sums_ + task * pass.task_floats();
    for (int64_t row = first + tokens * part / pass.parts_;
         row < first + tokens * (part + 1) / pass.parts_; ++row) {
      pass.walk(row, sums);
    }
  }

  template <class Body>
  INLINE void each(const TokenGradients& pass, Body body) {
    const int64_t whole = pass.whole_;  // local: stored vectors might change what `pass` holds
    const int rest = static_cast<int>(pass.call_.channels - whole);
    for (int64_t c = 0; c < whole; c += kLanes) body(c, kLanes);
    if (rest > 0) body(whole, rest);
  }

  INLINE const float* row_of(const float* tensor, int64_t row, int64_t stride) {
    return tensor != nullptr ? tensor + row * stride : nullptr;
  }

  // Gradients of row `row`: first of its norm, if there is one, then of its sum.
  void walk(int64_t row, float* sums) const {
    const int64_t channels = call_.channels;
    const float* total = row_of(gradients_.sum, row, channels);
    if (gradients_.out != nullptr) {
      float* gv = sums + kRow * padded_;
      normalise(row, total, gv, sums);
      total = gv;
    }
    add_up(row, total, sums);
  }

  // gv = the gradient of the sum, through the norm and by `direct`, which may be null.
  void normalise(int64_t row, const float* direct, float* gv, float* sums) const {
    const int64_t channels = call_.channels;
    const float* v = call_.sum != nullptr ? call_.sum + row * channels
                                          : at<Float32>(call_.x, row * call_.x_stride);
    const float *weight = call_.weight, *bias = call_.bias;
    const float* g_out = gradients_.out + row * channels;
    const float* gate = row_of(call_.gate, row, call_.gate_stride);
    float* g_gate = gradients_.gate != nullptr ? gradients_.gate + row * channels : nullptr;
    float *g_weight = sums + kWeight * padded_, *g_bias = sums + kBias * padded_;
    const Vector keep = load(keep_), one = broadcast(1.0f), zero = broadcast(0.0f);
    const float share = 1.0f / static_cast<float>(channels);
    Vector sum = zero, squares = zero;
    const Vector one_channel = broadcast(*v);  // see TokenPass::normalise
    each(*this, [&](int64_t c, int width) {
      Vector d = read_lanes<Float32>(v + c, width) - one_channel;
      if (width != kLanes) d = d * keep;  // the lanes beyond the last channel hold no data
      sum = sum + d;
    });
    const Vector mean = one_channel + broadcast(::total(sum) * share);
    each(*this, [&](int64_t c, int width) {
      Vector d = read_lanes<Float32>(v + c, width) - mean;
      if (width != kLanes) d = d * keep;
      squares = fma(d, d, squares);
    });
    const Vector scale = broadcast(1.0f / __builtin_sqrtf(::total(squares) * share + call_.eps));
    Vector sum_g = zero, sum_gn = zero;
    each(*this, [&](int64_t c, int width) {
      const Vector n = (read_lanes<Float32>(v + c, width) - mean) * scale;
      const Vector w = weight != nullptr ? read_lanes<Float32>(weight + c, width) : one;
      Vector g = read_lanes<Float32>(g_out + c, width);
      if (gate != nullptr) {
        const Vector x = read_lanes<Float32>(gate + c, width);
        if (g_gate != nullptr) {
          const Vector normed =
              fma(n, w, bias != nullptr ? read_lanes<Float32>(bias + c, width) : zero);
          write_lanes<Float32>(g_gate + c, g * normed * silu_slope(x), width);
        }
        g = g * silu(x);
      }
      store(g_weight + c, fma(g, n, load(g_weight + c)));
      store(g_bias + c, load(g_bias + c) + g);
      g = g * w;
      store(gv + c, g);
      sum_g = sum_g + g;
      sum_gn = fma(g, n, sum_gn);
    });
    const Vector mean_g = broadcast(::total(sum_g) * share);
    const Vector mean_gn = broadcast(::total(sum_gn) * share);
    each(*this, [=](int64_t c, int width) {
      const Vector n = (read_lanes<Float32>(v + c, width) - mean) * scale;
      Vector g = (load(gv + c) - mean_g - n * mean_gn) * scale;
      if (direct != nullptr) g = g + read_lanes<Float32>(direct + c, width);
      store(gv + c, g);
    });
  }

  // Gradients of x, gain, skip and scale from that of their sum.
  void add_up(int64_t row, const float* total, float* sums) const {
    const int64_t channels = call_.channels;
    float* g_x = gradients_.x != nullptr ? gradients_.x + row * channels : nullptr;
    float* g_skip = gradients_.skip != nullptr ? gradients_.skip + row * channels : nullptr;
    const float* gain = row_of(call_.gain, row / call_.tokens, channels);
    const float* scale = call_.scale;
    const float* x = at<Float32>(call_.x, row * call_.x_stride);
    const float* skip = row_of(call_.skip, row, call_.skip_stride);
    float* g_gain = gradients_.gain != nullptr ? sums + kGain * padded_ : nullptr;
    float* g_scale = gradients_.scale != nullptr ? sums + kScale * padded_ : nullptr;
    each(*this, [=](int64_t c, int width) {
      const Vector g = read_lanes<Float32>(total + c, width);
      if (g_gain != nullptr) {
        store(g_gain + c, fma(g, read_lanes<Float32>(x + c, width), load(g_gain + c)));
      }
      if (g_scale != nullptr) {
        store(g_scale + c, fma(g, read_lanes<Float32>(skip + c, width), load(g_scale + c)));
      }
      if (g_x != nullptr) {
        const Vector factor =
            gain != nullptr ? read_lanes<Float32>(gain + c, width) : broadcast(1.0f);
        write_lanes<Float32>(g_x + c, g * factor, width);
      }
      if (g_skip != nullptr) {
        const Vector factor =
            scale != nullptr ? read_lanes<Float32>(scale + c, width) : broadcast(1.0f);
        write_lanes<Float32>(g_skip + c, g * factor, width);
      }
    });
  }

  // out = the sums of tasks `first` to `first + count`.
  void add_up_parts(int which, int64_t first, int64_t count, float* out, int64_t start) const {
    if (out == nullptr) return;
    for (int64_t c = 0; c < call_.channels; ++c) {
      float sum = 0.0f;
      for (int64_t task = first; task < first + count; ++task) {
        sum += sums_[task * task_floats() + which * padded_ + c];
      }
      out[start + c] = sum;
    }
  }

  const ZooTokens& call_;
  const ZooTokensGradients& gradients_;
  const int64_t padded_, whole_, parts_;
  float keep_[kLanes];      // 1 for the channels of the last vector, 0 for its other lanes
  float* sums_ = nullptr;  // (tasks, kRows, padded channels)
};

}  // namespace
