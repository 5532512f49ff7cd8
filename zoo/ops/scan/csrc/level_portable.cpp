#include "simd_portable.h"

#include "level.h"

extern const Kernel kernel_portable = {
    "portable", run_forward, run_backward, run_depthwise, run_tokens, run_exp, run_softplus};
