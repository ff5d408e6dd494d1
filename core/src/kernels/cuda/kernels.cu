// All kernels, as one unit to compile.
#include "../activation/cuda.cu"
#include "../attention/cuda.cu"
#include "../bilateral_blur/cuda.cu"
#include "../depthwise_conv/cuda.cu"
#include "../group_norm/cuda.cu"
#include "../linear/cuda.cu"
#include "../modulation/cuda.cu"
#include "../norm/cuda.cu"
