// The C interface: chooses the dispatch level once per call.

#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "kernel.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace {

// Work that makes an additional thread worth its cost, in exponentials.
constexpr int64_t kExponentialsPerThread = 100000;

struct Level {
  const Kernel* kernel;
  bool runs;
};

#if defined(__x86_64__)
struct Cpu {
  bool avx2 = false, avx512 = false;

  Cpu() {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return;
    const unsigned needed = bit_FMA | bit_F16C | bit_AVX | bit_OSXSAVE;
    if ((c & needed) != needed) return;
    // The operating system must also save the wide registers.
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 0x06) != 0x06 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    avx2 = (b & bit_AVX2) != 0;
    const unsigned wide = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    avx512 = avx2 && (low & 0xe6) == 0xe6 && (b & wide) == wide;
  }
};
#endif

int find_kernel(const char* name, const Kernel** kernel) {
  if (name == nullptr) name = getenv("ZOO_NATIVE_LEVEL");
  const bool automatic = name == nullptr || *name == '\0';
#if defined(__x86_64__)
  const Cpu cpu;
  const Level levels[] = {
      {&kernel_avx512, cpu.avx512}, {&kernel_avx2, cpu.avx2}, {&kernel_portable, true}};
#elif defined(__aarch64__)
  const Level levels[] = {{&kernel_neon, true}, {&kernel_portable, true}};
#else
  const Level levels[] = {{&kernel_portable, true}};
#endif
  for (const Level& level : levels) {
    if (automatic ? !level.runs : strcmp(name, level.kernel->name) != 0) continue;
    if (!level.runs) return ZOO_UNSUPPORTED_LEVEL;
    *kernel = level.kernel;
    return ZOO_OK;
  }
  const char* const elsewhere[] = {"avx512", "avx2", "neon"};
  for (const char* other : elsewhere) {
    if (strcmp(name, other) == 0) return ZOO_UNSUPPORTED_LEVEL;
  }
  return ZOO_UNKNOWN_LEVEL;
}

Team useful_team(const ZooScan& scan, int threads, ZooOpenMP openmp) {
  // In floating point, because it may exceed any integer.
  const double work = 1.0 * scan.batch * scan.directions * scan.steps * scan.channels * scan.states;
  const double most = 1 + work / kExponentialsPerThread;
  if (threads > kMaxThreads) threads = kMaxThreads;
  return {threads < most ? threads : static_cast<int>(most), openmp};
}

using Elementwise = void (*)(const float*, float*, int64_t);

int repeat_call(Elementwise function, const float* in, float* out, int64_t count,
                int64_t repeat) {
  for (int64_t i = 0; i < repeat; ++i) function(in, out, count);
  return ZOO_OK;
}

}  // namespace

int zoo_scan_forward(const ZooScan* scan, void* y, const char* level, int threads,
                     ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  const int status = find_kernel(level, &kernel);
  if (status != ZOO_OK) return status;
  const CheckedScan checked(*scan);
  if (checked.status() != ZOO_OK) return checked.status();
  return kernel->forward(checked.scan(), y, useful_team(*scan, threads, openmp));
}

int zoo_scan_backward(const ZooScan* scan, const ZooScanGradients* gradients, const char* level,
                      int threads, ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  const int status = find_kernel(level, &kernel);
  if (status != ZOO_OK) return status;
  const CheckedScan checked(*scan);
  if (checked.status() != ZOO_OK) return checked.status();
  return kernel->backward(checked.scan(), *gradients, useful_team(*scan, threads, openmp));
}

const char* zoo_scan_level(const char* level) {
  const Kernel* kernel = nullptr;
  return find_kernel(level, &kernel) == ZOO_OK ? kernel->name : nullptr;
}

int zoo_scan_exp(const float* in, float* out, int64_t count, int64_t repeat, const char* level) {
  const Kernel* kernel = nullptr;
  const int status = find_kernel(level, &kernel);
  return status != ZOO_OK ? status : repeat_call(kernel->exp, in, out, count, repeat);
}

int zoo_scan_softplus(const float* in, float* out, int64_t count, int64_t repeat,
                      const char* level) {
  const Kernel* kernel = nullptr;
  const int status = find_kernel(level, &kernel);
  return status != ZOO_OK ? status : repeat_call(kernel->softplus, in, out, count, repeat);
}
