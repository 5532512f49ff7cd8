// Chooses the dispatch level, once per call.

#include <stdlib.h>
#include <string.h>

#include "kernel.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace {

struct Level {
  const Kernel* kernel;
  bool runs;
};

#if defined(__x86_64__)
// What the CPU runs. Asked once: on a virtual machine, each answer takes 20 microseconds or more.
struct Cpu {
  bool avx2 = false, avx512 = false, bf16 = false;

  static Cpu known() {
    constexpr int kAsked = 1, kAvx2 = 2, kAvx512 = 4, kBf16 = 8;
    static int answer = 0;  // threads that ask at the same time get the same
    int bits = __atomic_load_n(&answer, __ATOMIC_RELAXED);
    if (bits == 0) {
      Cpu cpu;
      cpu.ask();
      bits = kAsked | (cpu.avx2 ? kAvx2 : 0) | (cpu.avx512 ? kAvx512 : 0) | (cpu.bf16 ? kBf16 : 0);
      __atomic_store_n(&answer, bits, __ATOMIC_RELAXED);
    }
    Cpu cpu;
    cpu.avx2 = (bits & kAvx2) != 0;
    cpu.avx512 = (bits & kAvx512) != 0;
    cpu.bf16 = (bits & kBf16) != 0;
    return cpu;
  }

 private:
  void ask() {
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
    bf16 = avx512 && a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bit_AVX512BF16) != 0;
  }
};
#endif

}  // namespace

int find_kernel(const char* name, const Kernel** kernel) {
  if (name == nullptr) name = getenv("ZOO_NATIVE_LEVEL");
  const bool automatic = name == nullptr || *name == '\0';
#if defined(__x86_64__)
  const Cpu cpu = Cpu::known();
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

bool has_half_products(const Kernel& kernel) {
#if defined(__x86_64__)
  return kernel.half_products && Cpu::known().bf16;
#else
  return kernel.half_products;
#endif
}
