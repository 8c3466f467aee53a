// The functions of cuBLAS that graphc calls, on the CPU, with the library's signatures. They are stricter than it: what the
// documentation forbids is an error, and so is a product without a workspace of the caller's, whose contents are lost.

#include "cuda_emulator.hpp"

#include <cstdlib>
#include <cstring>

typedef struct Context* cublasHandle_t;
enum cublasStatus_t { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum cublasOperation_t { OP_N = 0, OP_T = 1 };
enum cudaDataType { R_32F = 0, R_64F = 1, R_16F = 2, R_16BF = 14 };
enum cublasComputeType_t { COMPUTE_32F = 68, COMPUTE_64F = 70, COMPUTE_32F_FAST_TF32 = 77 };

struct Context {
  void* stream = nullptr;
  void* workspace = nullptr;
  size_t workspace_bytes = 0;
  int math_mode = 0;
};

static double load(const void* from, long long i, cudaDataType type) {
  if (type == R_64F) return ((const double*)from)[i];
  if (type == R_32F) return ((const float*)from)[i];
  return type == R_16F ? widen(((const half_t*)from)[i]) : widen(((const bfloat_t*)from)[i]);
}

static void store(void* to, long long i, cudaDataType type, double value) {
  if (type == R_64F) ((double*)to)[i] = value;
  else if (type == R_32F) ((float*)to)[i] = (float)value;
  else if (type == R_16F) ((half_t*)to)[i] = to_half((float)value);
  else ((bfloat_t*)to)[i] = to_bfloat((float)value);
}

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  *handle = new Context;
  return SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, void* stream) {
  if (!handle) return NOT_INITIALIZED;
  handle->stream = stream;
  handle->workspace = nullptr;
  return SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, size_t bytes) {
  if (!handle) return NOT_INITIALIZED;
  if ((size_t)workspace % 256) return INVALID_VALUE;
  handle->workspace = workspace;
  handle->workspace_bytes = bytes;
  return SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, int mode) {
  if (!handle) return NOT_INITIALIZED;
  handle->math_mode = mode;
  return SUCCESS;
}

const char* cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case NOT_INITIALIZED: return "the library was not initialized";
    case INVALID_VALUE: return "an unsupported value or parameter was passed to the function";
    case NOT_SUPPORTED: return "the requested functionality is not supported";
    default: return "unknown";
  }
}

cublasStatus_t cublasGemmStridedBatchedEx_64(
    cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, long long m, long long n, long long k,
    const void* alpha, const void* A, cudaDataType Atype, long long lda, long long strideA, const void* B,
    cudaDataType Btype, long long ldb, long long strideB, const void* beta, void* C, cudaDataType Ctype, long long ldc,
    long long strideC, long long batchCount, cublasComputeType_t computeType, int algo) {
  if (!handle) return NOT_INITIALIZED;
  if (m < 0 || n < 0 || k < 0 || batchCount < 0 || (transa != OP_N && transa != OP_T) || (transb != OP_N && transb != OP_T))
    return INVALID_VALUE;
  const auto least = [](long long rows) { return rows > 1 ? rows : 1; };
  if (lda < least(transa ? k : m) || ldb < least(transb ? n : k) || ldc < least(m)) return INVALID_VALUE;
  if (batchCount > 1 && strideC < ldc * (n - 1) + m) return INVALID_VALUE;  // results would overlap
  const cublasComputeType_t wanted = Atype == R_64F ? COMPUTE_64F : COMPUTE_32F;
  const bool single_rounded = Atype == R_32F && computeType == COMPUTE_32F_FAST_TF32;
  if (Atype != Btype || Atype != Ctype || (computeType != wanted && !single_rounded) || algo != -1) return NOT_SUPPORTED;
  const size_t itemsize = Atype == R_64F ? 8 : Atype == R_32F ? 4 : 2;
  if (((size_t)A | (size_t)B | (size_t)C) % itemsize) return INVALID_VALUE;
  if (!handle->workspace || handle->math_mode != 16) return NOT_SUPPORTED;
  memset(handle->workspace, 0x5A, handle->workspace_bytes);
  const double a = Atype == R_64F ? *(const double*)alpha : *(const float*)alpha;
  const double b = Atype == R_64F ? *(const double*)beta : *(const float*)beta;
  if (b != 0) return NOT_SUPPORTED;
  const auto factor = [&](const void* from, long long at) {
    const double x = load(from, at, Atype);
    return single_rounded ? (double)from_bits(to_tf32((float)x)) : x;
  };
  for (long long g = 0; g < batchCount; ++g)
    for (long long i = 0; i < m; ++i)
      for (long long j = 0; j < n; ++j) {
        double sum = 0;
        for (long long l = 0; l < k; ++l)
          sum += factor(A, g * strideA + (transa ? l + i * lda : i + l * lda))
                 * factor(B, g * strideB + (transb ? j + l * ldb : l + j * ldb));
        store(C, g * strideC + i + j * ldc, Ctype, a * sum);
      }
  return SUCCESS;
}

}  // extern "C"
