// A depthwise convolution and its activation in one pass. A task is a band of rows of one image. It
// takes a tile of channels at a time, in blocks of columns that stay in the L1 cache, with the
// weights of a 3 x 3 kernel in registers.
#pragma once

namespace {

template <int kActivation>
INLINE Vector activated(Vector x) {
  if (kActivation == ZOO_SILU) return silu(x);
  if (kActivation == ZOO_GELU) return gelu(x);
  return x;
}

class Depthwise {
 public:
  Depthwise(const ZooDepthwise& call, float* out)
      : call_(call),
        out_(out),
        taps_(call.kernel * call.kernel),
        tiles_((call.channels + kLanes - 1) / kLanes),
        bands_((call.height + kBand - 1) / kBand) {}

  int run(const Team& team) {
    const int64_t floats = tiles_ * (taps_ + 1) * kLanes;
    weight_ = static_cast<float*>(aligned_allocate(floats * sizeof(float), true));
    if (weight_ == nullptr) return ZOO_OUT_OF_MEMORY;
    for (int64_t c = 0; c < call_.channels; ++c) {
      float* lane = weight_ + c / kLanes * (taps_ + 1) * kLanes + c % kLanes;
      for (int64_t t = 0; t < taps_; ++t) lane[t * kLanes] = call_.weight[c * taps_ + t];
      lane[taps_ * kLanes] = call_.bias != nullptr ? call_.bias[c] : 0.0f;
    }
    parallel_for(team, call_.batch * bands_, band_task, this);
    aligned_free(weight_);
    return ZOO_OK;
  }

 private:
  static constexpr int64_t kBand = 8, kColumns = 48;

  // Rows and columns of one image, and a tile of channels.
  struct Strip {
    int64_t image, top, bottom, left, right, first;
    int width;
    const float* weight;  // (taps, W), then the bias (W)
  };

  static void band_task(void* self, int worker, int64_t task) {
    const auto& call = *static_cast<const Depthwise*>(self);
    const auto fill = call.filler();
    Strip strip;
    strip.image = task / call.bands_;
    strip.top = task % call.bands_ * kBand;
    strip.bottom = least(strip.top + kBand, call.call_.height);
    for (strip.left = 0; strip.left < call.call_.width; strip.left = strip.right) {
      strip.right = least(strip.left + kColumns, call.call_.width);
      for (int64_t tile = 0; tile < call.tiles_; ++tile) {
        strip.first = tile * kLanes;
        strip.width = static_cast<int>(least(kLanes, call.call_.channels - strip.first));
        strip.weight = call.weight_ + tile * (call.taps_ + 1) * kLanes;
        (call.*fill)(strip);
      }
    }
  }

  static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

  using Filler = void (Depthwise::*)(const Strip&) const;
  Filler filler() const {
    const bool three = call_.kernel == 3;
    switch (call_.activation) {
      case ZOO_SILU:
        return three ? &Depthwise::fill<3, ZOO_SILU> : &Depthwise::fill<0, ZOO_SILU>;
      case ZOO_GELU:
        return three ? &Depthwise::fill<3, ZOO_GELU> : &Depthwise::fill<0, ZOO_GELU>;
      default:
        return three ? &Depthwise::fill<3, ZOO_NO_ACTIVATION>
                     : &Depthwise::fill<0, ZOO_NO_ACTIVATION>;
    }
  }

  template <int kKernel, int kActivation>
  void fill(const Strip& strip) const {
    if (strip.width == kLanes) {
      fill_rows<kKernel, kActivation, true>(strip);
    } else {
      fill_rows<kKernel, kActivation, false>(strip);
    }
  }

  // kKernel: side of the kernel, or 0 for any. kWhole: whether all lanes are channels.
  template <int kKernel, int kActivation, bool kWhole>
  void fill_rows(const Strip& strip) const {
    constexpr int kHeld = kKernel * kKernel, kSide = kKernel > 0 ? kKernel : 1;
    // Everything that the inner loop reads is local: the compiler cannot know that the vectors it
    // stores change nothing else.
    const int width = kWhole ? kLanes : strip.width;
    const int64_t reach = call_.kernel / 2 * call_.dilation, channels = call_.channels;
    const int64_t row = call_.x_stride[1], column = call_.x_stride[2];
    const float* image = call_.x + strip.image * call_.x_stride[0] + strip.first;
    const Vector bias = load(strip.weight + taps_ * kLanes);
    Vector held[kHeld + 1];
    int64_t offset[kHeld + 1];
#pragma GCC unroll 9
    for (int t = 0; t < kHeld; ++t) {
      held[t] = load(strip.weight + t * kLanes);
      offset[t] = (t / kSide * row + t % kSide * column) * call_.dilation;
    }
    // From a kernel's corner to the first pixel below it, which the next row needs.
    const int64_t below = (2 * reach + 1) * row + reach * column;
    const int64_t first_inside = reach > strip.left ? reach : strip.left;
    const int64_t end_inside = least(call_.width - reach, strip.right);
    for (int64_t y = strip.top; y < strip.bottom; ++y) {
      const bool inside = kHeld > 0 && y >= reach && y + reach < call_.height;
      const int64_t begin = inside ? least(first_inside, strip.right) : strip.right;
      const int64_t end = inside && end_inside > begin ? end_inside : begin;
      const int64_t out_row = (strip.image * call_.height + y) * call_.width;
      float* out = out_ + out_row * channels + strip.first;
      const auto beside = [&](int64_t from, int64_t to) {
        for (int64_t x = from; x < to; ++x) {
          const Vector sum = taps_inside(strip, image, y - reach, x - reach, bias);
          write_lanes<Float32>(out + x * channels, activated<kActivation>(sum), width);
        }
      };
      beside(strip.left, begin);
      const float* corner = image + (y - reach) * row + (begin - reach) * column;
      for (int64_t x = begin; x < end; ++x, corner += column) {
        Vector sum = bias;
        __builtin_prefetch(corner + below);
        __builtin_prefetch(out + (x + call_.width) * channels, 1);
#pragma GCC unroll 9
        for (int t = 0; t < kHeld; ++t) {
          sum = fma(held[t], read_lanes<Float32>(corner + offset[t], width), sum);
        }
        write_lanes<Float32>(out + x * channels, activated<kActivation>(sum), width);
      }
      beside(end, strip.right);
    }
  }

  // Adds the taps that lie inside the image, for a kernel whose first tap is at row y, column x.
  Vector taps_inside(const Strip& strip, const float* image, int64_t y, int64_t x,
                     Vector sum) const {
    const float* weight = strip.weight;
    for (int64_t i = 0; i < call_.kernel; ++i) {
      const int64_t row = y + i * call_.dilation;
      const float* in = image + row * call_.x_stride[1];
      for (int64_t j = 0; j < call_.kernel; ++j, weight += kLanes) {
        const int64_t column = x + j * call_.dilation;
        if (row < 0 || row >= call_.height || column < 0 || column >= call_.width) continue;
        sum = fma(load(weight), read_lanes<Float32>(in + column * call_.x_stride[2], strip.width),
                  sum);
      }
    }
    return sum;
  }

  const ZooDepthwise& call_;
  float* const out_;
  const int64_t taps_, tiles_, bands_;
  float* weight_ = nullptr;  // (tiles, taps + 1, W)
};

}  // namespace
