/* Checks a build of the kernel on any platform, without Python: outputs and gradients of stored
 * cases on each dispatch level, with one thread and with three, and the refusal of wrong input.
 *
 *   scan_check LIBRARY CASES [LEVEL ...]
 *
 * Without levels: all that this CPU runs. Prints the largest error of each level and returns 0 if
 * every case passes. tests/kernel/stored_cases.py writes the cases: a little-endian file, read in the
 * order of the fields below.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "../../zoo/ops/scan/csrc/zoo_scan.h"

typedef int (*Forward)(const ZooScan*, void*, const char*, int, ZooOpenMP);
typedef int (*Backward)(const ZooScan*, const ZooScanGradients*, const char*, int, ZooOpenMP);
typedef const char* (*LevelOf)(const char*);

static Forward forward;
static Backward backward;
static LevelOf level_of;

static void* find(const char* library, const char* name) {
  void* found;
#if defined(_WIN32)
  HMODULE module = LoadLibraryA(library);
  found = module == NULL ? NULL : (void*)(uintptr_t)GetProcAddress(module, name);
#else
  void* module = dlopen(library, RTLD_NOW);
  if (module == NULL) fprintf(stderr, "%s\n", dlerror());
  found = module == NULL ? NULL : dlsym(module, name);
#endif
  if (found == NULL) {
    fprintf(stderr, "%s has no %s, or does not load\n", library, name);
    exit(2);
  }
  return found;
}

/* ---- The stored cases ---- */

enum { kResults = 9 }; /* y, then the gradients of u, delta, B, C, delta_weight, delta_bias, A, D */

typedef struct Case {
  char name[64];
  double tolerance;
  int32_t dtype, reduce, projected, per_image;
  int64_t batch, tokens, directions, steps, channels, rank, states;
  void *u, *delta, *B, *C;
  float *delta_weight, *delta_bias, *A, *D;
  int32_t* order;
  void* grad_y;
  float* expected[kResults]; /* NULL for the weight if there is no projection */
} Case;

static FILE* file;

static void read_bytes(void* to, size_t bytes) {
  if (fread(to, 1, bytes, file) != bytes) {
    fprintf(stderr, "the file of cases is too short\n");
    exit(2);
  }
}

static void* read_array(int64_t count, size_t bytes) {
  void* array = malloc(count * bytes + 1);
  read_bytes(array, count * bytes);
  return array;
}

/* How many elements a result has, in the order of `expected`. */
static int64_t count_of(const Case* c, int result) {
  const int64_t visits = c->batch * c->tokens * c->directions, inner = c->directions * c->channels;
  const int64_t counts[kResults] = {c->reduce ? c->batch * c->tokens * c->channels
                                              : visits * c->channels,
                                    c->batch * c->tokens * c->channels,
                                    visits * c->rank,
                                    visits * c->states,
                                    visits * c->states,
                                    c->projected ? inner * c->rank : 0,
                                    inner,
                                    inner * c->states,
                                    inner};
  return counts[result];
}

static size_t token_bytes(const Case* c) { return c->dtype == ZOO_FLOAT32 ? 4 : 2; }

static void read_case(Case* c) {
  const size_t f = sizeof(float);
  memset(c, 0, sizeof *c);
  read_bytes(c->name, sizeof c->name);
  read_bytes(&c->tolerance, sizeof c->tolerance);
  read_bytes(&c->dtype, 4 * sizeof(int32_t));
  read_bytes(&c->batch, 7 * sizeof(int64_t));
  const size_t t = token_bytes(c);
  c->u = read_array(count_of(c, 1), t);
  c->delta = read_array(count_of(c, 2), t);
  c->B = read_array(count_of(c, 3), t);
  c->C = read_array(count_of(c, 4), t);
  c->delta_weight = c->projected ? read_array(count_of(c, 5), f) : NULL;
  c->delta_bias = read_array(count_of(c, 6), f);
  c->A = read_array(count_of(c, 7), f);
  c->D = read_array(count_of(c, 8), f);
  c->order = read_array((c->per_image ? c->batch : 1) * c->directions * c->steps, sizeof(int32_t));
  c->grad_y = read_array(count_of(c, 0), t);
  for (int r = 0; r < kResults; ++r) c->expected[r] = read_array(count_of(c, r), f);
}

static void dense(int64_t* stride, const Case* c, int64_t row) {
  stride[2] = row;
  stride[1] = row * c->directions;
  stride[0] = stride[1] * c->tokens;
}

static ZooScan describe(const Case* c) {
  ZooScan scan;
  memset(&scan, 0, sizeof scan);
  scan.dtype = c->dtype;
  scan.reduce = c->reduce;
  memcpy(&scan.batch, &c->batch, 7 * sizeof(int64_t));
  scan.u = c->u;
  scan.delta = c->delta;
  scan.B = c->B;
  scan.C = c->C;
  scan.delta_weight = c->delta_weight;
  scan.delta_bias = c->delta_bias;
  scan.A = c->A;
  scan.D = c->D;
  scan.order = c->order;
  scan.order_stride = c->per_image ? c->directions * c->steps : 0;
  scan.u_stride[1] = c->channels;
  scan.u_stride[0] = c->channels * c->tokens;
  dense(scan.delta_stride, c, c->rank);
  dense(scan.B_stride, c, c->states);
  dense(scan.C_stride, c, c->states);
  return scan;
}

/* ---- Comparison ---- */

static float half_value(uint16_t x) {
  const int exponent = x >> 10 & 31;
  const float fraction = (float)(x & 1023) / 1024;
  const float size = exponent == 0    ? ldexpf(fraction, -14)
                     : exponent == 31 ? (x & 1023 ? NAN : INFINITY)
                                      : ldexpf(1 + fraction, exponent - 15);
  return x & 0x8000 ? -size : size;
}

static float value_of(const void* array, int dtype, int64_t i) {
  if (dtype == ZOO_FLOAT32) return ((const float*)array)[i];
  const uint16_t bits = ((const uint16_t*)array)[i];
  if (dtype == ZOO_FLOAT16) return half_value(bits);
  const uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

/* The deviation relative to the norm of what is expected; NaN if a result is NaN. */
static double deviation(const void* found, int dtype, const float* expected, int64_t count) {
  double wrong = 0, whole = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double difference = (double)value_of(found, dtype, i) - expected[i];
    wrong += difference * difference;
    whole += (double)expected[i] * expected[i];
  }
  return sqrt(wrong) / (sqrt(whole) + 1e-30);
}

/* Runs a case and returns its results: y, then the gradients. */
static int run(const Case* c, const char* level, int threads, void** results) {
  ZooScan scan = describe(c);
  int status = forward(&scan, results[0], level, threads, NULL);
  if (status != ZOO_OK) return status;
  ZooScanGradients g;
  memset(&g, 0, sizeof g);
  g.y = c->grad_y;
  dense(g.y_stride, c, c->channels);
  if (c->reduce) {
    g.y_stride[2] = 0;
    g.y_stride[1] = c->channels;
    g.y_stride[0] = c->channels * c->tokens;
  }
  g.u = results[1];
  g.delta = results[2];
  g.B = results[3];
  g.C = results[4];
  g.delta_weight = c->projected ? results[5] : NULL;
  g.delta_bias = results[6];
  g.A = results[7];
  g.D = results[8];
  return backward(&scan, &g, level, threads, NULL);
}

static int dtype_of(const Case* c, int result) { return result < 5 ? c->dtype : ZOO_FLOAT32; }

/* Returns whether the case passes, and its two errors. */
static int check_case(const Case* c, const char* level, double* error_y, double* error_gradients) {
  void *one[kResults], *three[kResults];
  int good = 1;
  for (int r = 0; r < kResults; ++r) {
    const size_t bytes = count_of(c, r) * 4 + 1;
    one[r] = memset(malloc(bytes), 0x7f, bytes);
    three[r] = memset(malloc(bytes), 0x3f, bytes);
  }
  const int status = run(c, level, 1, one), again = run(c, level, 3, three);
  if (status != ZOO_OK || again != ZOO_OK) {
    printf("FAILED %s %s: status %d and %d\n", level, c->name, status, again);
    good = 0;
  }
  *error_y = *error_gradients = 0;
  for (int r = 0; r < kResults && good; ++r) {
    const int dtype = dtype_of(c, r);
    const int64_t count = count_of(c, r);
    const double error = deviation(one[r], dtype, c->expected[r], count);
    double* worst = r == 0 ? error_y : error_gradients;
    if (!(error <= *worst)) *worst = error;
    if (!(error <= c->tolerance)) {
      printf("FAILED %s %s: result %d is off by %.2g\n", level, c->name, r, error);
      good = 0;
    }
    if (memcmp(one[r], three[r], count * (dtype == ZOO_FLOAT32 ? 4 : 2)) != 0) {
      printf("FAILED %s %s: result %d differs with three threads\n", level, c->name, r);
      good = 0;
    }
  }
  for (int r = 0; r < kResults; ++r) {
    free(one[r]);
    free(three[r]);
  }
  return good;
}

/* Wrong input has its own status, and nothing is written. */
static int check_refusals(const Case* c, const char* level) {
  const ZooScan right = describe(c);
  int32_t outside[64], twice[64];
  const int64_t entries = c->directions * c->steps;
  if (entries > 64 || c->per_image || c->steps < 2 || c->batch == 0) return 1;
  memcpy(outside, c->order, entries * sizeof(int32_t));
  memcpy(twice, c->order, entries * sizeof(int32_t));
  outside[0] = (int32_t)c->tokens;
  twice[0] = twice[1] = 0;
  ZooScan wrong[4] = {right, right, right, right};
  wrong[0].order = outside;
  wrong[1].order = twice;
  wrong[2].A = (const float*)((const char*)right.A + 1);
  wrong[3].states = 0;
  const int statuses[4] = {ZOO_WRONG_ENTRY, ZOO_REPEATED_TOKEN, ZOO_MISALIGNED, ZOO_WRONG_SIZE};
  const size_t bytes = count_of(c, 0) * token_bytes(c);
  unsigned char* y = memset(malloc(bytes), 0x55, bytes);
  int good = 1;
  for (int i = 0; i < 4; ++i) {
    const int status = forward(&wrong[i], y, level, 1, NULL);
    if (status != statuses[i]) {
      printf("FAILED %s: status %d instead of %d\n", level, status, statuses[i]);
      good = 0;
    }
  }
  if (forward(&right, y, "no such level", 1, NULL) != ZOO_UNKNOWN_LEVEL) good = 0;
  for (size_t i = 0; i < bytes; ++i) good &= y[i] == 0x55;
  free(y);
  return good;
}

static int check_level(const char* level, const Case* cases, int count) {
  double worst_y = 0, worst_gradients = 0;
  int passed = 0, good = 1;
  for (int i = 0; i < count; ++i) {
    double y, gradients;
    passed += check_case(&cases[i], level, &y, &gradients);
    if (cases[i].dtype == ZOO_FLOAT32) {
      worst_y = y > worst_y ? y : worst_y;
      worst_gradients = gradients > worst_gradients ? gradients : worst_gradients;
    }
    good &= check_refusals(&cases[i], level);
  }
  printf("%-8s %d of %d cases; largest error in float32: y %.1e, gradients %.1e; refusals %s\n",
         level, passed, count, worst_y, worst_gradients, good ? "right" : "WRONG");
  return good && passed == count;
}

int main(int argc, char** argv) {
  const char* known[] = {"avx512", "avx2", "neon", "portable"};
  char magic[8];
  int32_t count = 0;
  int levels = 0, good = 1;
  if (argc < 3) {
    fprintf(stderr, "usage: scan_check LIBRARY CASES [LEVEL ...]\n");
    return 2;
  }
  forward = (Forward)(uintptr_t)find(argv[1], "zoo_scan_forward");
  backward = (Backward)(uintptr_t)find(argv[1], "zoo_scan_backward");
  level_of = (LevelOf)(uintptr_t)find(argv[1], "zoo_scan_level");
  find(argv[1], "RegisterCustomOps");
  file = fopen(argv[2], "rb");
  if (file == NULL) {
    fprintf(stderr, "%s does not open\n", argv[2]);
    return 2;
  }
  read_bytes(magic, sizeof magic);
  read_bytes(&count, sizeof count);
  if (memcmp(magic, "ZOOSCAN1", 8) != 0 || count < 1) {
    fprintf(stderr, "%s is not a file of cases\n", argv[2]);
    return 2;
  }
  Case* cases = calloc(count, sizeof *cases);
  for (int i = 0; i < count; ++i) read_case(&cases[i]);
  fclose(file);
  for (int i = 0; i < 4; ++i) {
    int wanted = argc == 3 && level_of(known[i]) != NULL;
    for (int j = 3; j < argc; ++j) wanted |= strcmp(argv[j], known[i]) == 0;
    if (!wanted) continue;
    ++levels;
    good &= check_level(known[i], cases, count);
  }
  if (levels < argc - 3 || levels == 0) {
    printf("FAILED: a level that was asked for is not known\n");
    good = 0;
  }
  printf("%s\n", good ? "PASSED" : "FAILED");
  return good ? 0 : 1;
}
