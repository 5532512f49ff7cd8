#include "simd_avx2.h"

#include "level.h"

extern const Kernel kernel_avx2 = ZOO_KERNEL("avx2");
