#include "simd_avx512.h"

#include "level.h"

extern const Kernel kernel_avx512 = {
    "avx512", run_forward, run_backward, run_depthwise, run_tokens, run_exp, run_softplus};
