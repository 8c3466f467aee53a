// What no C++ can say: conversions, exchange between threads, and matrix instructions of the GPU.

struct half_t { unsigned short bits; };
struct bfloat_t { unsigned short bits; };

__device__ inline float widen(half_t x) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
  return wide;
}

__device__ inline float widen(bfloat_t x) { return __uint_as_float((unsigned)x.bits << 16); }

__device__ inline half_t to_half(float x) {
  half_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half.bits) : "f"(x));
  return half;
}

__device__ inline bfloat_t to_bfloat(float x) {
  bfloat_t half;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half.bits) : "f"(x));
  return half;
}

__device__ inline unsigned bits_of(float x) { return __float_as_uint(x); }
__device__ inline unsigned long long bits_of(double x) { return __double_as_longlong(x); }
__device__ inline float from_bits(unsigned x) { return __uint_as_float(x); }
__device__ inline double from_bits(unsigned long long x) { return __longlong_as_double(x); }

// d += a * b for the tiles of a warp: a is 16 x 16, b is 16 x 8, d is 16 x 8 in single precision, as `mma.m16n8k16` has them.
__device__ inline void multiply_tiles(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], half_t) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void multiply_tiles(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], bfloat_t) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
