#include "simd_avx2.h"

#include "level.h"

extern const Kernel kernel_avx2 = {
    "avx2", run_forward, run_backward, run_depthwise, run_tokens, run_exp, run_softplus};
