#include "simd_avx512.h"

#include "level.h"

extern const Kernel kernel_avx512 = ZOO_KERNEL("avx512");
