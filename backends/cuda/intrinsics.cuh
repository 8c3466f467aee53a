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

// Two numbers as halves side by side, the first of them low.
__device__ inline unsigned pack(float low, float high, half_t) {
  unsigned both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

__device__ inline unsigned pack(float low, float high, bfloat_t) {
  unsigned both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
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

struct tf32_t {};

__device__ inline unsigned to_tf32(float x) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

// The same for numbers in single precision with 11 bits: a is 16 x 8, b is 8 x 8, as `mma.m16n8k8` has them.
__device__ inline void multiply_tiles(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], tf32_t) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline unsigned in_shared(const void* x) { return (unsigned)__cvta_generic_to_shared(x); }

// Four squares of 8 x 8 halves from shared memory: `row` is of lane 8 * s + r the address of row r of square s. Each lane gets of
// each square two neighbours of row lane / 4; of turned squares, of column lane / 4.
__device__ inline void load_squares(unsigned& a, unsigned& b, unsigned& c, unsigned& d, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(in_shared(row)) : "memory");
}

__device__ inline void load_squares_turned(unsigned& a, unsigned& b, unsigned& c, unsigned& d, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(in_shared(row)) : "memory");
}

// Copies from memory to shared memory that go on beside the code, of 16 bytes each; zeros where it is not `wanted`.
__device__ inline void copy_16_bytes(void* to, const void* from, bool wanted) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(in_shared(to)), "l"(from), "r"(wanted ? 16 : 0) : "memory");
}

__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
