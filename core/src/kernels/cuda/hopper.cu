// The kernels for compute capability 9.0 alone, as one unit to compile.
#include "../attention/warpgroup.cu"
#include "../linear/warpgroup.cu"
