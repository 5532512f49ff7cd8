#include "simd_neon.h"

#include "level.h"

extern const Kernel kernel_neon = ZOO_KERNEL("neon");
