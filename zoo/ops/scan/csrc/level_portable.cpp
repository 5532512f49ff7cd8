#include "simd_portable.h"

#include "level.h"

extern const Kernel kernel_portable = ZOO_KERNEL("portable");
