// ONNX Runtime operators for the selective scan: `zoo::SelectiveScan` and `zoo::SelectiveScanSum`.
//
// ONNX Runtime passes its functions as a table, so the library does not link to it. The used part
// of its C interface (version 18, ONNX Runtime 1.18 or newer) is declared here. Newer versions only
// append to the table.

#include <stdint.h>
#include <string.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <unistd.h>
#endif

#include "zoo_scan.h"

namespace {

// ---- The used part of ONNX Runtime's C interface ----

constexpr uint32_t kApiVersion = 18;
constexpr int kFail = 1, kInvalidArgument = 2;
enum ElementType { kFloat = 1, kInt32 = 6, kFloat16 = 10, kBFloat16 = 16 };
enum { kRequired = 0, kMemoryDefault = 0 };

struct Status;
struct SessionOptions;
struct KernelInfo;
struct KernelContext;
struct Value;
struct Shape;
struct ShapeInference;
struct Domain;
struct CustomOp;

// Indices of functions in the table.
enum Slot {
  kCreateStatus = 0,
  kCreateCustomOpDomain = 26,
  kCustomOpDomainAdd = 27,
  kAddCustomOpDomain = 28,
  kGetTensorMutableData = 51,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTensorTypeAndShape = 65,
  kKernelContextGetInput = 90,
  kKernelContextGetOutput = 91,
  kReleaseTensorTypeAndShapeInfo = 99,
  kKernelContextParallelFor = 274,
};

using Function = void (*)();

struct ApiBase {
  const Function* (*get_api)(uint32_t version);
  const char* (*get_version)();
};

struct CustomOp {
  uint32_t version;
  void* (*create_kernel)(const CustomOp*, const Function* api, const KernelInfo*);
  const char* (*get_name)(const CustomOp*);
  const char* (*get_execution_provider)(const CustomOp*);
  int (*get_input_type)(const CustomOp*, size_t index);
  size_t (*get_input_count)(const CustomOp*);
  int (*get_output_type)(const CustomOp*, size_t index);
  size_t (*get_output_count)(const CustomOp*);
  void (*compute)(void* kernel, KernelContext*);
  void (*destroy)(void* kernel);
  int (*get_input_characteristic)(const CustomOp*, size_t index);
  int (*get_output_characteristic)(const CustomOp*, size_t index);
  int (*get_input_memory)(const CustomOp*, size_t index);
  int (*get_input_minimum)(const CustomOp*);
  int (*get_input_homogeneous)(const CustomOp*);
  int (*get_output_minimum)(const CustomOp*);
  int (*get_output_homogeneous)(const CustomOp*);
  Status* (*create_kernel_with_status)(const CustomOp*, const Function*, const KernelInfo*, void**);
  Status* (*compute_with_status)(void* kernel, KernelContext*);
  Status* (*infer_shapes)(const CustomOp*, ShapeInference*);
  int (*get_first_version)(const CustomOp*);
  int (*get_last_version)(const CustomOp*);
  size_t (*get_in_place)(int**, int**);
  void (*release_in_place)(int*, int*);
  size_t (*get_aliases)(int**, int**);
  void (*release_aliases)(int*, int*);
};

template <typename Result, typename... Arguments>
Result call(const Function* api, Slot slot, Arguments... arguments) {
  return reinterpret_cast<Result (*)(Arguments...)>(api[slot])(arguments...);
}

// ---- Threads ----

// The scan runs on the runtime's own threads: a second team would compete with them for the cores.
// They need the call's context, which the kernel's interface does not pass on.
struct Running {
  const Function* api;
  KernelContext* context;
};
thread_local Running running;

struct Body {
  void (*run)(void*);
  void* context;
};

void run_body(void* body, size_t) {
  const Body& self = *static_cast<const Body*>(body);
  self.run(self.context);
}

// Has the signature of ZooOpenMP. Every call of the body takes tasks until none is left, so it does
// not matter how many calls the runtime makes at the same time.
void run_on_runtime(void (*run)(void*), void* context, unsigned threads, unsigned) {
  Body body = {run, context};
  const size_t total = threads, batches = 0;
  call<Status*>(running.api, kKernelContextParallelFor,
                static_cast<const KernelContext*>(running.context), &run_body, total, batches,
                static_cast<void*>(&body));
}

int processors() {
#if defined(_WIN32)
  SYSTEM_INFO info;
  GetSystemInfo(&info);
  return static_cast<int>(info.dwNumberOfProcessors);
#else
  const long count = sysconf(_SC_NPROCESSORS_ONLN);
  return count > 0 ? static_cast<int>(count) : 1;
#endif
}

// ---- The operators ----

// The inputs in the order of SCHEMA in zoo/ops/scan/contract.py; a test compares the two.
enum Input { kU, kDelta, kDeltaWeight, kDeltaBias, kA, kB, kC, kD, kOrder, kInputs };
// Axes by letter: B batch, L tokens, K directions, S steps, E channels, R rank, N states. The order
// may also be BKS, with an order for each image.
const char* const kAxes[kInputs] = {"BLE",  "BLKR", "KER", "KE", "KEN",
                                    "BLKN", "BLKN", "KE",  "KS"};

int64_t calls = 0;

struct Operator {
  CustomOp table;  // first, so that the runtime's pointer is also a pointer to Operator
  bool sum;
  int element;  // of u, delta, B, C and y
  int dtype;    // the same dtype as a ZOO_* constant
};

struct Kernel {
  const Function* api;
  const Operator* op;
};

struct Tensor {
  void* data;
  size_t rank;
  int64_t size[4];
};

Status* failure(const Function* api, int code, const char* message) {
  return call<Status*>(api, kCreateStatus, code, message);
}

const char* axes_of(int index, const Tensor& tensor) {
  return index == kOrder && tensor.rank == 3 ? "BKS" : kAxes[index];
}

// Reads an input. Returns null, or an error that says why the input could not be read.
Status* read_input(const Function* api, KernelContext* context, int index, Tensor* tensor) {
  const Value* value = nullptr;
  Shape* shape = nullptr;
  Status* status = call<Status*>(api, kKernelContextGetInput,
                                 static_cast<const KernelContext*>(context),
                                 static_cast<size_t>(index), &value);
  if (status != nullptr) return status;
  status = call<Status*>(api, kGetTensorTypeAndShape, value, &shape);
  if (status != nullptr) return status;
  status = call<Status*>(api, kGetDimensionsCount, static_cast<const Shape*>(shape), &tensor->rank);
  if (status == nullptr && tensor->rank != strlen(axes_of(index, *tensor))) {
    status = failure(api, kInvalidArgument,
                     "zoo::SelectiveScan: an input has the wrong number of dimensions");
  }
  if (status == nullptr) {
    status = call<Status*>(api, kGetDimensions, static_cast<const Shape*>(shape), tensor->size,
                           tensor->rank);
  }
  call<void>(api, kReleaseTensorTypeAndShapeInfo, shape);
  if (status != nullptr) return status;
  return call<Status*>(api, kGetTensorMutableData, const_cast<Value*>(value), &tensor->data);
}

const char* message_of(int status) {
  switch (status) {
    case ZOO_OUT_OF_MEMORY: return "zoo::SelectiveScan: out of memory";
    case ZOO_WRONG_SIZE:
      return "zoo::SelectiveScan: the sizes of the inputs do not fit each other";
    case ZOO_WRONG_ENTRY:
      return "zoo::SelectiveScan: order has an entry outside -1 .. L-1";
    case ZOO_REPEATED_TOKEN:
      return "zoo::SelectiveScan: a direction of order visits a token twice";
    case ZOO_MISALIGNED: return "zoo::SelectiveScan: an input is not aligned to its elements";
    default: return "zoo::SelectiveScan: this CPU cannot run the level of ZOO_NATIVE_LEVEL";
  }
}

int64_t size_along(char axis, const ZooScan& scan) {
  switch (axis) {
    case 'B': return scan.batch;
    case 'L': return scan.tokens;
    case 'K': return scan.directions;
    case 'S': return scan.steps;
    case 'E': return scan.channels;
    case 'R': return scan.rank;
    default: return scan.states;
  }
}

// The file may be untrusted: checks sizes before the kernel uses them.
const char* mistake(const ZooScan& scan, const Tensor* inputs) {
  for (int index = 0; index < kInputs; ++index) {
    const char* axes = axes_of(index, inputs[index]);
    for (int i = 0; axes[i] != '\0'; ++i) {
      if (inputs[index].size[i] != size_along(axes[i], scan)) return message_of(ZOO_WRONG_SIZE);
    }
  }
  return nullptr;
}

void dense_strides(const Tensor& tensor, int64_t* stride) {
  stride[2] = tensor.size[3];
  stride[1] = stride[2] * tensor.size[2];
  stride[0] = stride[1] * tensor.size[1];
}

Status* compute(void* self, KernelContext* context) {
  const Kernel& kernel = *static_cast<const Kernel*>(self);
  const Function* api = kernel.api;
  Tensor inputs[kInputs];
  for (int index = 0; index < kInputs; ++index) {
    Status* status = read_input(api, context, index, &inputs[index]);
    if (status != nullptr) return status;
  }
  ZooScan scan;
  memset(&scan, 0, sizeof scan);
  scan.dtype = kernel.op->dtype;
  scan.reduce = kernel.op->sum;
  scan.batch = inputs[kU].size[0];
  scan.tokens = inputs[kU].size[1];
  scan.channels = inputs[kU].size[2];
  const Tensor& order = inputs[kOrder];
  scan.directions = order.size[order.rank - 2];
  scan.steps = order.size[order.rank - 1];
  scan.order_stride = order.rank == 3 ? scan.directions * scan.steps : 0;
  scan.rank = inputs[kDeltaWeight].size[2];
  scan.states = inputs[kA].size[2];
  scan.u = inputs[kU].data;
  scan.delta = inputs[kDelta].data;
  scan.B = inputs[kB].data;
  scan.C = inputs[kC].data;
  scan.delta_weight = static_cast<const float*>(inputs[kDeltaWeight].data);
  scan.delta_bias = static_cast<const float*>(inputs[kDeltaBias].data);
  scan.A = static_cast<const float*>(inputs[kA].data);
  scan.D = static_cast<const float*>(inputs[kD].data);
  scan.order = static_cast<const int32_t*>(order.data);
  scan.u_stride[1] = scan.channels;
  scan.u_stride[0] = scan.channels * scan.tokens;
  dense_strides(inputs[kDelta], scan.delta_stride);
  dense_strides(inputs[kB], scan.B_stride);
  dense_strides(inputs[kC], scan.C_stride);
  const char* wrong = mistake(scan, inputs);
  if (wrong != nullptr) return failure(api, kInvalidArgument, wrong);

  const int64_t each[4] = {scan.batch, scan.tokens, scan.directions, scan.channels};
  const int64_t sum[3] = {scan.batch, scan.tokens, scan.channels};
  const int64_t* shape = scan.reduce ? sum : each;
  const size_t rank = scan.reduce ? 3 : 4, first = 0;
  Value* output = nullptr;
  void* y = nullptr;
  Status* status = call<Status*>(api, kKernelContextGetOutput, context, first, shape, rank, &output);
  if (status != nullptr) return status;
  status = call<Status*>(api, kGetTensorMutableData, output, &y);
  if (status != nullptr) return status;

  running = {api, context};
  const int failed = zoo_scan_forward(&scan, y, nullptr, processors(), run_on_runtime);
  __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
  if (failed == ZOO_OK) return nullptr;
  const bool of_inputs = failed >= ZOO_WRONG_SIZE;
  return failure(api, of_inputs ? kInvalidArgument : kFail, message_of(failed));
}

const Operator& of(const CustomOp* op) { return *reinterpret_cast<const Operator*>(op); }

constexpr int kKernels = 6;
// One kernel for each operator. A kernel holds only the table, which is the same in a process.
Kernel kernels[kKernels];

Status* create(const CustomOp* op, const Function* api, const KernelInfo*, void** kernel);

void fill(Operator* op, bool sum, int element, int dtype) {
  memset(op, 0, sizeof *op);
  op->sum = sum;
  op->element = element;
  op->dtype = dtype;
  CustomOp& to = op->table;
  to.version = kApiVersion;
  to.get_name = [](const CustomOp* o) { return of(o).sum ? "SelectiveScanSum" : "SelectiveScan"; };
  to.get_execution_provider = [](const CustomOp*) { return "CPUExecutionProvider"; };
  to.get_input_type = [](const CustomOp* o, size_t index) -> int {
    if (index == kOrder) return kInt32;
    const bool token = index == kU || index == kDelta || index == kB || index == kC;
    return token ? of(o).element : kFloat;
  };
  to.get_input_count = [](const CustomOp*) -> size_t { return kInputs; };
  to.get_output_type = [](const CustomOp* o, size_t) { return of(o).element; };
  to.get_output_count = [](const CustomOp*) -> size_t { return 1; };
  to.destroy = [](void*) {};
  to.get_input_characteristic = [](const CustomOp*, size_t) -> int { return kRequired; };
  to.get_output_characteristic = [](const CustomOp*, size_t) -> int { return kRequired; };
  to.get_input_memory = [](const CustomOp*, size_t) -> int { return kMemoryDefault; };
  to.get_input_minimum = [](const CustomOp*) { return 1; };
  to.get_input_homogeneous = [](const CustomOp*) { return 1; };
  to.get_output_minimum = [](const CustomOp*) { return 1; };
  to.get_output_homogeneous = [](const CustomOp*) { return 1; };
  to.create_kernel_with_status = create;
  to.compute_with_status = compute;
  to.get_first_version = [](const CustomOp*) { return 1; };
  to.get_last_version = [](const CustomOp*) { return 1; };
}

Operator operators[kKernels];
// Created once and never released, because any session may still use it.
Domain* domain = nullptr;
bool registering = false;

Status* create(const CustomOp* op, const Function* api, const KernelInfo*, void** kernel) {
  Kernel& own = kernels[&of(op) - operators];
  own = {api, &of(op)};
  *kernel = &own;
  return nullptr;
}

Status* make_domain(const Function* api) {
  const int elements[3][2] = {
      {kFloat, ZOO_FLOAT32}, {kFloat16, ZOO_FLOAT16}, {kBFloat16, ZOO_BFLOAT16}};
  Domain* made = nullptr;
  Status* status = call<Status*>(api, kCreateCustomOpDomain, "zoo", &made);
  for (int index = 0; index < kKernels && status == nullptr; ++index) {
    const int* element = elements[index / 2];
    fill(&operators[index], index % 2 != 0, element[0], element[1]);
    status = call<Status*>(api, kCustomOpDomainAdd, made,
                           static_cast<const CustomOp*>(&operators[index].table));
  }
  if (status == nullptr) domain = made;
  return status;
}

}  // namespace

extern "C" {

// ONNX Runtime calls this function in SessionOptions.register_custom_ops_library.
ZOO_API Status* RegisterCustomOps(SessionOptions* options, const ApiBase* base) {
  const Function* api = base->get_api(kApiVersion);
  if (api == nullptr) return nullptr;  // a runtime that is too old has no table to create a status
  while (__atomic_test_and_set(&registering, __ATOMIC_ACQUIRE)) {
  }
  Status* status = domain != nullptr ? nullptr : make_domain(api);
  __atomic_clear(&registering, __ATOMIC_RELEASE);
  if (status != nullptr) return status;
  return call<Status*>(api, kAddCustomOpDomain, options, domain);
}

// Number of times that the operators have run in this process, for tests.
ZOO_API int64_t zoo_ort_calls(void) { return __atomic_load_n(&calls, __ATOMIC_RELAXED); }

}  // extern "C"
