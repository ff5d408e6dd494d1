// Stands in for cuBLAS, cuBLASLt and cuRAND: matrix products in f32 for all types, as asked of the real ones, and random
// numbers.
#include "cuda_fp16.h"
#include "device.h"

#include <random>
#include <vector>

namespace {

enum { SUCCESS = 0, INVALID_VALUE = 7 };
enum Type { F32 = 0, F16 = 2, BF16 = 14 };
enum Compute { COMPUTE_F32 = 68 };
constexpr int ODD_LENGTH = 105;

size_t size_of(int type) { return type == F32 ? 4 : 2; }

float get(const void* values, int type, size_t i) {
    switch (type) {
    case F32: return static_cast<const float*>(values)[i];
    case F16: return static_cast<const __half*>(values)[i];
    default: return static_cast<const __nv_bfloat16*>(values)[i];
    }
}

void set(void* values, int type, size_t i, float x) {
    switch (type) {
    case F32: static_cast<float*>(values)[i] = x; break;
    case F16: static_cast<__half*>(values)[i] = x; break;
    default: static_cast<__nv_bfloat16*>(values)[i] = x;
    }
}

const void* at(const void* values, int type, long long offset) {
    return static_cast<const char*>(values) + offset * (long long)size_of(type);
}

bool is_known(int type) { return type == F32 || type == F16 || type == BF16; }

// The last value of a matrix of columns `stride` apart, and one more.
size_t extent(int rows, int columns, int stride) { return rows && columns ? size_t(columns - 1) * stride + rows : 0; }

} // namespace

#define API extern "C" __attribute__((visibility("default"))) int

API cublasCreate_v2(void** handle) { return *handle = new char, SUCCESS; }
API cublasDestroy_v2(void* handle) { return delete static_cast<char*>(handle), SUCCESS; }
API cublasSetStream_v2(void*, void*) { return SUCCESS; }

// Columns lie behind each other: C = alpha A B + beta C, with A or B turned where asked.
API cublasGemmStridedBatchedEx(void*, int turn_a, int turn_b, int m, int n, int k, const float* alpha, const void* a,
                               int type_a, int lda, long long step_a, const void* b, int type_b, int ldb,
                               long long step_b, const float* beta, void* c, int type_c, int ldc, long long step_c,
                               int batch, int compute, int) {
    if (m < 0 || n < 0 || k < 0 || batch < 0 || compute != COMPUTE_F32) return INVALID_VALUE;
    if (!is_known(type_a) || type_a != type_b || (type_c != type_a && type_c != F32)) return INVALID_VALUE;
    int rows_a = turn_a ? k : m, columns_a = turn_a ? m : k, rows_b = turn_b ? n : k, columns_b = turn_b ? k : n;
    auto is_narrow = [](int stride, int rows) { return stride < (rows > 1 ? rows : 1); };
    if (is_narrow(lda, rows_a) || is_narrow(ldb, rows_b) || is_narrow(ldc, m)) return INVALID_VALUE;
    device::record("product %d %d %d, %d of type %d", m, n, k, batch, type_a);
    std::vector<float> left(size_t(m) * k), column(m);
    for (int i = 0; i < batch; i++) {
        const void* x = at(a, type_a, i * step_a);
        const void* y = at(b, type_b, i * step_b);
        void* z = const_cast<void*>(at(c, type_c, i * step_c));
        device::check(x, extent(rows_a, columns_a, lda) * size_of(type_a), "product");
        device::check(y, extent(rows_b, columns_b, ldb) * size_of(type_b), "product");
        device::check(z, extent(m, n, ldc) * size_of(type_c), "product");
        for (int p = 0; p < k; p++) {
            for (int row = 0; row < m; row++) {
                size_t index = turn_a ? size_t(row) * lda + p : size_t(p) * lda + row;
                left[size_t(p) * m + row] = get(x, type_a, index);
            }
        }
        for (int j = 0; j < n; j++) {
            std::fill(column.begin(), column.end(), 0.0f);
            for (int p = 0; p < k; p++) {
                float factor = get(y, type_b, turn_b ? size_t(p) * ldb + j : size_t(j) * ldb + p);
                const float* from = &left[size_t(p) * m];
                for (int row = 0; row < m; row++) column[row] += factor * from[row];
            }
            for (int row = 0; row < m; row++) {
                size_t index = size_t(j) * ldc + row;
                float old = *beta == 0.0f ? 0.0f : *beta * get(z, type_c, index);
                set(z, type_c, index, *alpha * column[row] + old);
            }
        }
    }
    return SUCCESS;
}

API cublasGemmEx(void* handle, int turn_a, int turn_b, int m, int n, int k, const float* alpha, const void* a,
                 int type_a, int lda, const void* b, int type_b, int ldb, const float* beta, void* c, int type_c,
                 int ldc, int compute, int algorithm) {
    return cublasGemmStridedBatchedEx(handle, turn_a, turn_b, m, n, k, alpha, a, type_a, lda, 0, b, type_b, ldb, 0,
                                      beta, c, type_c, ldc, 0, 1, compute, algorithm);
}

// cuBLASLt. Descriptions are what was set in them.
struct Operation {
    int turn_a = 0, turn_b = 0, epilogue = 1;
    const void* bias = nullptr;
};
struct Matrix {
    int type;
    int rows, columns, stride;
};
struct Wishes {
    size_t workspace = 0;
    unsigned alignments[4] = {256, 256, 256, 256};
};
// What the algorithm counts on; fits into the 64 bytes of the real ones.
struct Algorithm {
    unsigned magic, alignments[4];
};
struct Heuristic {
    union {
        Algorithm algorithm;
        char room[64];
    };
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};
enum Epilogue { BIAS = 4, GELU_BIAS = 36 };
constexpr unsigned MAGIC = 0x4c74;
constexpr int NOT_SUPPORTED = 15;
constexpr size_t WORKSPACE = 1000;

API cublasLtMatmulDescCreate(Operation** made, int compute, int scale) {
    return *made = new Operation, compute == COMPUTE_F32 && scale == F32 ? SUCCESS : INVALID_VALUE;
}
API cublasLtMatmulDescDestroy(Operation* made) { return delete made, SUCCESS; }
API cublasLtMatmulDescSetAttribute(Operation* made, int attribute, const void* value, size_t size) {
    switch (attribute) {
    case 3: return memcpy(&made->turn_a, value, 4), size == 4 ? SUCCESS : INVALID_VALUE;
    case 4: return memcpy(&made->turn_b, value, 4), size == 4 ? SUCCESS : INVALID_VALUE;
    case 7: return memcpy(&made->epilogue, value, 4), size == 4 ? SUCCESS : INVALID_VALUE;
    case 8: return memcpy(&made->bias, value, 8), size == 8 ? SUCCESS : INVALID_VALUE;
    default: return INVALID_VALUE;
    }
}
API cublasLtMatrixLayoutCreate(Matrix** made, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    if (!is_known(type) || stride < int64_t(rows)) return INVALID_VALUE;
    return *made = new Matrix{type, int(rows), int(columns), int(stride)}, SUCCESS;
}
API cublasLtMatrixLayoutDestroy(Matrix* made) { return delete made, SUCCESS; }
API cublasLtMatmulPreferenceCreate(Wishes** made) { return *made = new Wishes, SUCCESS; }
API cublasLtMatmulPreferenceDestroy(Wishes* made) { return delete made, SUCCESS; }
API cublasLtMatmulPreferenceSetAttribute(Wishes* made, int attribute, const void* value, size_t size) {
    if (attribute == 1) return memcpy(&made->workspace, value, 8), size == 8 ? SUCCESS : INVALID_VALUE;
    if (attribute < 5 || attribute > 8 || size != 4) return INVALID_VALUE;
    return memcpy(&made->alignments[attribute - 5], value, 4), SUCCESS;
}
API cublasLtMatmulAlgoGetHeuristic(void*, Operation* operation, Matrix* a, Matrix* b, Matrix* c, Matrix* d,
                                   Wishes* wishes, int, Heuristic* found, int* count) {
    *count = 0;
    int m = operation->turn_a ? a->columns : a->rows, k = operation->turn_a ? a->rows : a->columns;
    int n = operation->turn_b ? b->rows : b->columns;
    if (k != (operation->turn_b ? b->columns : b->rows)) return INVALID_VALUE;
    for (Matrix* out : {c, d}) {
        if (out->rows != m || out->columns != n) return INVALID_VALUE;
    }
    if (operation->epilogue != BIAS && operation->epilogue != GELU_BIAS) return NOT_SUPPORTED;
    // Callers must be ready for it: shapes of odd sides are none that this one knows.
    if (m % 8 || k % 8) return NOT_SUPPORTED;
    *found = {};
    found->algorithm = {MAGIC, {wishes->alignments[0], wishes->alignments[1], wishes->alignments[2], wishes->alignments[3]}};
    found->workspace = wishes->workspace < WORKSPACE ? 0 : WORKSPACE;
    return *count = 1, SUCCESS;
}
API cublasLtMatmul(void*, Operation* operation, const float* alpha, const void* a, Matrix* of_a, const void* b,
                   Matrix* of_b, const float* beta, const void* c, Matrix* of_c, void* d, Matrix* of_d,
                   const Heuristic* found, void* workspace, size_t size, void*) {
    if (found->algorithm.magic != MAGIC || of_c->stride != of_d->stride) return INVALID_VALUE;
    const void* operands[4] = {a, b, c, d};
    for (int i = 0; i < 4; i++) {
        if (uintptr_t(operands[i]) % found->algorithm.alignments[i]) return INVALID_VALUE;
    }
    device::check(workspace, size, "workspace");
    device::check(operation->bias, of_d->rows * size_of(of_d->type), "bias");
    memset(workspace, 0x5a, size);
    int m = of_d->rows, n = of_d->columns, k = operation->turn_a ? of_a->rows : of_a->columns;
    device::check(d, extent(m, n, of_d->stride) * size_of(of_d->type), "product");
    // The sums stay in f32 until the end.
    float* sums = static_cast<float*>(device::allocate(4 * size_t(m) * n));
    if (!sums) return 3; // CUBLAS_STATUS_ALLOC_FAILED
    float zero = 0.0f;
    int code = cublasGemmStridedBatchedEx(nullptr, operation->turn_a, operation->turn_b, m, n, k, alpha, a, of_a->type,
                                          of_a->stride, 0, b, of_b->type, of_b->stride, 0, &zero, sums, F32, m, 0, 1,
                                          COMPUTE_F32, 0);
    for (int j = 0; j < n && code == SUCCESS; j++) {
        for (int i = 0; i < m; i++) {
            size_t index = size_t(j) * of_d->stride + i;
            float y = sums[size_t(j) * m + i] + get(operation->bias, of_d->type, i);
            if (*beta != 0.0f) y += *beta * get(c, of_c->type, index);
            if (operation->epilogue == GELU_BIAS) {
                y = 0.5f * y * (1.0f + tanhf(0.7978845608f * (y + 0.044715f * y * y * y)));
            }
            set(d, of_d->type, index, y);
        }
    }
    device::give_back(sums);
    return code;
}

API curandCreateGenerator(void** generator, int) { return *generator = new std::mt19937(0), SUCCESS; }
API curandDestroyGenerator(void* generator) { return delete static_cast<std::mt19937*>(generator), SUCCESS; }
API curandSetStream(void*, void*) { return SUCCESS; }
API curandSetPseudoRandomGeneratorSeed(void* generator, unsigned long long seed) {
    return static_cast<std::mt19937*>(generator)->seed(unsigned(seed)), SUCCESS;
}
API curandGenerateUniform(void* generator, float* out, size_t count) {
    device::check(out, 4 * count, "random numbers");
    std::uniform_real_distribution<float> numbers(0.0f, 1.0f);
    for (size_t i = 0; i < count; i++) out[i] = 1.0f - numbers(*static_cast<std::mt19937*>(generator));
    return SUCCESS;
}
API curandGenerateNormal(void* generator, float* out, size_t count, float mean, float deviation) {
    if (count % 2) return ODD_LENGTH;
    device::check(out, 4 * count, "random numbers");
    std::normal_distribution<float> numbers(mean, deviation);
    for (size_t i = 0; i < count; i++) out[i] = numbers(*static_cast<std::mt19937*>(generator));
    return SUCCESS;
}
