#include "simd_neon.h"

#include "level.h"

extern const Kernel kernel_neon = {
    "neon", run_forward, run_backward, run_depthwise, run_tokens, run_exp, run_softplus};
