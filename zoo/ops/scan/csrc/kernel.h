// What a dispatch level offers the library. Each level is one translation unit compiled with its
// own instruction set; everything else in it has internal linkage, so that the linker cannot merge
// a wide function into code that runs before dispatch.
#pragma once

#include "threads.h"
#include "zoo_scan.h"

struct Kernel {
  const char* name;
  int (*forward)(const ZooScan&, void* y, const Team&);
  int (*backward)(const ZooScan&, const ZooScanGradients&, const Team&);
  void (*exp)(const float* in, float* out, int64_t count);
  void (*softplus)(const float* in, float* out, int64_t count);
};

extern const Kernel kernel_portable;
#if defined(__x86_64__)
extern const Kernel kernel_avx2;
extern const Kernel kernel_avx512;
#endif
