// The tensor library's own kernels, from its sources, by their names. `build.sh` lists the names in `kernels.inc`.
#include "cuda_fp8.h"

#include <cuda/std/limits>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#ifdef LIST
#undef EMULATED_GLOBAL
#endif
#define __CUDA_ARCH__ 800
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0

// They are made to be compiled one by one.
namespace tensors_affine {
#include "affine.cu"
}
namespace tensors_binary {
#include "binary.cu"
}
namespace tensors_cast {
#include "cast.cu"
}
namespace tensors_conv {
#include "conv.cu"
}
namespace tensors_fill {
#include "fill.cu"
}
namespace tensors_indexing {
#include "indexing.cu"
}
namespace tensors_reduce {
#include "reduce.cu"
}
namespace tensors_ternary {
#include "ternary.cu"
}
namespace tensors_unary {
#include "unary.cu"
}

#ifndef LIST
using namespace tensors_affine;
using namespace tensors_binary;
using namespace tensors_cast;
using namespace tensors_conv;
using namespace tensors_fill;
using namespace tensors_indexing;
using namespace tensors_reduce;
using namespace tensors_ternary;
using namespace tensors_unary;

namespace {

// Calls a kernel with what the addresses in `parameters` point to.
template <class... A, size_t... I> void call(void (*kernel)(A...), void* const* parameters, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<A>*>(parameters[I])...);
}

template <auto kernel> struct Call;
template <class... A, void (*kernel)(A...)> struct Call<kernel> {
    static void run(const void* parameters) {
        call(kernel, static_cast<void* const*>(parameters), std::index_sequence_for<A...>());
    }
};

std::map<std::string, emulated::Kernel> all = {
#define ENTRY(name) {#name, Call<&name>::run},
#include "kernels.inc"
};

} // namespace

emulated::Kernel tensor_kernel(const std::string& name) {
    auto found = all.find(name);
    return found == all.end() ? nullptr : found->second;
}
#endif
