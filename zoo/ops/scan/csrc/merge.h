// Passes over the separate outputs of a scan's directions; see ZooDirections. Tokens are summed up in
// parts, whose number depends on sizes alone, so results do not depend on the number of threads.
#pragma once

namespace {

class Directions {
 public:
  explicit Directions(const ZooDirections& call)
      : call_(call),
        parts_((call.tokens + kTokens - 1) / kTokens),
        padded_((call.channels + kLanes - 1) / kLanes * kLanes) {}

  // out (B, K, C) = the mean over tokens of norm(y)
  int mean(const Team& team, float* out) {
    const int64_t rows = call_.images * call_.directions, floats = rows * parts_ * part_floats();
    sums_ = static_cast<float*>(aligned_allocate(floats * sizeof(float), true));
    if (sums_ == nullptr) return ZOO_OUT_OF_MEMORY;
    out_ = out;
    parallel_for(team, rows * parts_, part_task, this);
    parallel_for(team, rows, mean_task, this);
    aligned_free(sums_);
    return ZOO_OK;
  }

  // out (B, L, C) = the sum over directions of gate y
  int sum(const Team& team, const float* gate, float* out) {
    gate_ = gate;
    out_ = out;
    parallel_for(team, call_.images * parts_, sum_task, this);
    return ZOO_OK;
  }

 private:
  static constexpr int64_t kTokens = 256;  // of a part
  static constexpr int64_t kTogether = 8;  // tokens that are normalised at a time

  int64_t part_floats() const { return (1 + kTogether) * padded_; }

  const float* row(int64_t image, int64_t token, int64_t direction) const {
    return call_.y +
           ((image * call_.tokens + token) * call_.directions + direction) * call_.channels;
  }

  static void part_task(void* self, int worker, int64_t task) {
    const auto& pass = *static_cast<const Directions*>(self);
    const ZooDirections& call = pass.call_;
    const int64_t direction = task / pass.parts_ % call.directions;
    const int64_t image = task / pass.parts_ / call.directions;
    const int64_t first = task % pass.parts_ * kTokens, channels = call.channels;
    const int64_t end = least(first + kTokens, call.tokens);
    float* sums = pass.sums_ + task * pass.part_floats();
    float* normed = sums + pass.padded_;
    ZooTokens norm = {};
    norm.images = 1;
    norm.channels = channels;
    norm.eps = call.eps;
    norm.x_stride = call.directions * channels;
    norm.out = normed;
    for (int64_t t = first; t < end; t += kTogether) {
      norm.x = pass.row(image, t, direction);
      norm.tokens = least(end - t, kTogether);
      TokenPass(norm).run({1, nullptr});
      each_tile(channels, [=](int64_t, int64_t c, int width) {
        Vector sum = load(sums + c);
        for (int64_t i = 0; i < norm.tokens; ++i) {
          sum = sum + read_lanes<Float32>(normed + i * channels + c, width);
        }
        store(sums + c, sum);
      });
    }
  }

  static void mean_task(void* self, int worker, int64_t task) {
    const auto& pass = *static_cast<const Directions*>(self);
    const ZooDirections& call = pass.call_;
    const float* sums = pass.sums_ + task * pass.parts_ * pass.part_floats();
    const Vector share = broadcast(1.0f / static_cast<float>(call.tokens));
    each_tile(call.channels, [&](int64_t, int64_t c, int width) {
      Vector sum = broadcast(0.0f);
      for (int64_t i = 0; i < pass.parts_; ++i) sum = sum + load(sums + i * pass.part_floats() + c);
      sum = sum * share;
      if (call.weight != nullptr) sum = sum * read_lanes<Float32>(call.weight + c, width);
      if (call.bias != nullptr) sum = sum + read_lanes<Float32>(call.bias + c, width);
      write_lanes<Float32>(pass.out_ + task * call.channels + c, sum, width);
    });
  }

  static void sum_task(void* self, int worker, int64_t task) {
    const auto& pass = *static_cast<const Directions*>(self);
    const ZooDirections& call = pass.call_;
    const int64_t image = task / pass.parts_, first = task % pass.parts_ * kTokens;
    const int64_t channels = call.channels, directions = call.directions;
    const float* gate = pass.gate_ + image * directions * channels;
    for (int64_t t = first; t < least(first + kTokens, call.tokens); ++t) {
      const float* y = pass.row(image, t, 0);
      float* out = pass.out_ + (image * call.tokens + t) * channels;
      each_tile(channels, [=](int64_t, int64_t c, int width) {
        Vector sum = broadcast(0.0f);
        for (int64_t k = 0; k < directions; ++k) {
          sum = fma(read_lanes<Float32>(gate + k * channels + c, width),
                    read_lanes<Float32>(y + k * channels + c, width), sum);
        }
        write_lanes<Float32>(out + c, sum, width);
      });
    }
  }

  const ZooDirections& call_;
  const int64_t parts_, padded_;
  const float* gate_ = nullptr;
  float* out_ = nullptr;
  float* sums_ = nullptr;  // (B, K, parts): a sum and some tokens' norms, padded
};

}  // namespace
