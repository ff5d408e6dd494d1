// Stands in for NVIDIA's driver, libcuda.so.1: one device, whose kernels run on the processor, and which is stricter than
// a real one. It knows the functions that the library and the tensor library call; every call does its work at once.
#include "cuda/emulate.h"
#include "device.h"

#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

emulated::Kernel tensor_kernel(const std::string& name);

namespace device {
size_t total();
void usage(size_t& now, size_t& most, bool forget);
} // namespace device

namespace {

// The driver's codes.
enum Code {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
};

// Most shared memory of a block: without leave, with it on devices of the oldest generation, and on Hopper.
constexpr unsigned SHARED = 48 << 10, MOST_SHARED = 99 << 10, HOPPER_SHARED = 227 << 10;
constexpr unsigned THREADS = 1024;

struct Function {
    std::string name;
    emulated::Kernel kernel;
    // The tensor library's kernels take many arguments, the library's own take one.
    bool takes_many;
    std::atomic<unsigned> shared{SHARED};
};

thread_local void* context;
char the_context, the_pool;
std::atomic<size_t> streams;

// Hopper has kernels of its own.
int generation() {
    const char* named = getenv("TAGBRUSH_EMULATED_GENERATION");
    return named ? atoi(named) : 9;
}

bool is_lost() { return context != &the_context; }

Function* function(const char* name) {
    static std::mutex lock;
    static std::map<std::string, Function> all;
    std::lock_guard<std::mutex> held(lock);
    auto found = all.find(name);
    if (found != all.end()) return &found->second;
    emulated::Kernel own = emulated::find(name), other = own ? nullptr : tensor_kernel(name);
    if (!own && !other) return nullptr;
    Function& made = all[name];
    made.name = name, made.kernel = own ? own : other, made.takes_many = !own;
    return &made;
}

} // namespace

#define API extern "C" __attribute__((visibility("default"))) int
#define IN_CONTEXT \
    if (is_lost()) return INVALID_CONTEXT

API cuInit(unsigned) { return SUCCESS; }
API cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }
API cuGetErrorString(int code, const char** text) {
    static thread_local char words[32];
    snprintf(words, sizeof words, "code %d", code);
    return *text = words, SUCCESS;
}
API cuGetErrorName(int code, const char** text) {
    switch (code) {
    case INVALID_VALUE: *text = "CUDA_ERROR_INVALID_VALUE"; break;
    case OUT_OF_MEMORY: *text = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case INVALID_DEVICE: *text = "CUDA_ERROR_INVALID_DEVICE"; break;
    case INVALID_CONTEXT: *text = "CUDA_ERROR_INVALID_CONTEXT"; break;
    case NOT_FOUND: *text = "CUDA_ERROR_NOT_FOUND"; break;
    default: *text = "CUDA_SUCCESS";
    }
    return SUCCESS;
}

// The device.
API cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
API cuDeviceGet(int* device, int index) { return *device = index, index == 0 ? SUCCESS : INVALID_DEVICE; }
API cuDeviceGetName(char* name, int length, int) {
    snprintf(name, size_t(length), "the processor, emulating a device");
    return SUCCESS;
}
API cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = device::total(), SUCCESS; }
API cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
    case 1: *value = THREADS; break;
    case 10: *value = 32; break; // Lanes of a warp.
    case 16: *value = 1; break; // Multiprocessors.
    case 75: *value = generation(); break; // Compute capability.
    case 76: *value = 0; break;
    case 115: *value = 1; break; // Memory pools.
    default: *value = 0;
    }
    return SUCCESS;
}
API cuDevicePrimaryCtxRetain(void** made, int) { return *made = &the_context, SUCCESS; }
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxSetCurrent(void* made) { return context = made, SUCCESS; }
API cuCtxGetCurrent(void** made) { return *made = context, SUCCESS; }

// Streams and events: nothing is ever waited for.
API cuStreamCreate(void** stream, unsigned) {
    IN_CONTEXT;
    return *stream = reinterpret_cast<void*>(++streams + 16), SUCCESS;
}
API cuStreamDestroy_v2(void*) { return SUCCESS; }
API cuStreamSynchronize(void*) {
    IN_CONTEXT;
    device::record("wait");
    return SUCCESS;
}
API cuCtxSynchronize() {
    IN_CONTEXT;
    device::record("wait");
    return SUCCESS;
}
API cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
API cuStreamIsCapturing(void*, int* status) { return *status = 0, SUCCESS; }
API cuEventCreate(void** event, unsigned) { return *event = &the_context, SUCCESS; }
API cuEventDestroy_v2(void*) { return SUCCESS; }
API cuEventRecord(void*, void*) {
    device::record("event");
    return SUCCESS;
}
API cuEventSynchronize(void*) { return SUCCESS; }
API cuEventElapsedTime_v2(float* ms, void*, void*) { return *ms = 0.0f, SUCCESS; }

// Memory.
API cuMemAlloc_v2(void** memory, size_t size) {
    IN_CONTEXT;
    if (size == 0) return INVALID_VALUE;
    *memory = device::allocate(size);
    device::record("allocate %zu", size);
    return *memory ? SUCCESS : OUT_OF_MEMORY;
}
API cuMemAllocAsync(void** memory, size_t size, void*) { return cuMemAlloc_v2(memory, size); }
API cuMemFree_v2(void* memory) {
    IN_CONTEXT;
    return device::give_back(memory) ? SUCCESS : INVALID_VALUE;
}
API cuMemFreeAsync(void* memory, void*) { return cuMemFree_v2(memory); }
API cuMemGetInfo_v2(size_t* left, size_t* total) {
    IN_CONTEXT;
    size_t used, peak;
    device::usage(used, peak, false);
    *total = device::total(), *left = *total - used;
    return SUCCESS;
}
API cuDeviceGetDefaultMemPool(void** pool, int) { return *pool = &the_pool, SUCCESS; }
API cuMemPoolSetAttribute(void*, int attribute, void*) {
    size_t used, peak;
    if (attribute == 8) device::usage(used, peak, true); // Forgets the peak.
    return SUCCESS;
}
API cuMemPoolGetAttribute(void*, int attribute, void* value) {
    size_t used, peak;
    device::usage(used, peak, false);
    switch (attribute) {
    case 5: case 7: *static_cast<uint64_t*>(value) = used; return SUCCESS; // Reserved, used.
    case 6: case 8: *static_cast<uint64_t*>(value) = peak; return SUCCESS; // The most of either.
    default: return INVALID_VALUE;
    }
}
API cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t size, void*) {
    IN_CONTEXT;
    device::check(to, size, "upload");
    device::record("upload %zu", size);
    return memcpy(to, from, size), SUCCESS;
}
API cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t size, void*) {
    IN_CONTEXT;
    device::check(from, size, "download");
    device::record("download %zu", size);
    return memcpy(to, from, size), SUCCESS;
}
API cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t size, void*) {
    IN_CONTEXT;
    device::check(to, size, "copy");
    device::check(from, size, "copy");
    device::record("copy %zu", size);
    return memmove(to, from, size), SUCCESS;
}
API cuMemcpyHtoD_v2(void* to, const void* from, size_t size) { return cuMemcpyHtoDAsync_v2(to, from, size, nullptr); }
API cuMemcpyDtoH_v2(void* to, const void* from, size_t size) { return cuMemcpyDtoHAsync_v2(to, from, size, nullptr); }
API cuMemsetD8Async(void* to, unsigned char value, size_t size, void*) {
    IN_CONTEXT;
    device::check(to, size, "fill");
    device::record("fill %zu", size);
    return memset(to, value, size), SUCCESS;
}
API cuMemsetD8_v2(void* to, unsigned char value, size_t size) { return cuMemsetD8Async(to, value, size, nullptr); }

// Kernels: whatever is loaded, they are those that were built in.
API cuModuleLoadData(void** module, const void*) {
    IN_CONTEXT;
    return *module = &the_context, SUCCESS;
}
API cuModuleUnload(void*) { return SUCCESS; }
API cuModuleGetFunction(void** made, void*, const char* name) {
    *made = function(name);
    if (!*made) fprintf(stderr, "emulated device: no kernel %s\n", name);
    return *made ? SUCCESS : NOT_FOUND;
}
API cuFuncSetAttribute(void* made, int attribute, int value) {
    if (attribute != 8 || value < 0 || unsigned(value) > (generation() == 9 ? HOPPER_SHARED : MOST_SHARED)) return INVALID_VALUE;
    static_cast<Function*>(made)->shared = unsigned(value);
    return SUCCESS;
}
API cuLaunchKernel(void* made, unsigned x, unsigned y, unsigned z, unsigned across, unsigned down, unsigned deep,
                   unsigned shared, void*, void** parameters, void**) {
    IN_CONTEXT;
    Function& function = *static_cast<Function*>(made);
    unsigned long long threads = 1ull * across * down * deep;
    if (!x || !y || !z || !threads || x > 0x7fffffffu || y > 65535 || z > 65535 || deep > 64) return INVALID_VALUE;
    if (threads > THREADS || shared > function.shared) return INVALID_VALUE;
    device::record("launch %s %u %u %u, %u %u %u, %u", function.name.c_str(), x, y, z, across, down, deep, shared);
    const void* arguments = function.takes_many ? parameters : parameters[0];
    emulated::run(function.kernel, {x, y, z}, {across, down, deep}, shared, arguments);
    return SUCCESS;
}
