// CUDA's execution model on a CPU, as kernels see it. What is declared here is in cuda_emulator.cpp, which is compiled once; and
// nothing is included, since that would take longer than kernels do.

#define __device__
#define __global__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

typedef decltype(sizeof(0)) size_t;
struct index3 { unsigned x; };
extern index3 threadIdx, blockIdx;

void __syncthreads();
void __syncwarp(unsigned mask = 0xffffffffu);
unsigned long long exchange_word(unsigned mask, unsigned long long word, int distance);

template <class V> V __shfl_xor_sync(unsigned mask, V value, int distance) {
  unsigned long long word = 0;
  __builtin_memcpy(&word, &value, sizeof(V));
  word = exchange_word(mask, word, distance);
  __builtin_memcpy(&value, &word, sizeof(V));
  return value;
}

#define FUNCTION(name) \
  static inline float name(float x) { return __builtin_##name##f(x); } \
  static inline double name(double x) { return __builtin_##name(x); }
FUNCTION(exp) FUNCTION(exp2) FUNCTION(expm1) FUNCTION(fabs) FUNCTION(floor) FUNCTION(log) FUNCTION(log10) FUNCTION(log1p)
FUNCTION(log2) FUNCTION(rint) FUNCTION(sqrt) FUNCTION(tanh) FUNCTION(trunc) FUNCTION(ceil) FUNCTION(erf) FUNCTION(erfc)
FUNCTION(sin) FUNCTION(cos) FUNCTION(tan) FUNCTION(asin) FUNCTION(acos) FUNCTION(atan) FUNCTION(sinh) FUNCTION(cosh)
FUNCTION(asinh) FUNCTION(acosh) FUNCTION(atanh) FUNCTION(lgamma)
#undef FUNCTION
#define FUNCTION(name) \
  static inline float name(float x, float y) { return __builtin_##name##f(x, y); } \
  static inline double name(double x, double y) { return __builtin_##name(x, y); }
FUNCTION(copysign) FUNCTION(fmod) FUNCTION(pow) FUNCTION(atan2)
#undef FUNCTION
static inline double erfinv(double x) {  // by Newton's method, which comes from the left for a convex function
  if (!(x > -1 && x < 1)) return x == 1 ? __builtin_inf() : x == -1 ? -__builtin_inf() : __builtin_nan("");
  const double rest = 1 - __builtin_fabs(x);
  double y = 0;
  for (int step = 0; step < 64; ++step) {
    const double error = rest < 0.5 ? __builtin_erfc(y) - rest : __builtin_fabs(x) - __builtin_erf(y);
    y += error * __builtin_exp(y * y) * 0.886226925452758;
  }
  return __builtin_copysign(y, x);
}
static inline float erfinv(float x) { return (float)erfinv((double)x); }
static inline float fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
static inline double fma(double x, double y, double z) { return __builtin_fma(x, y, z); }
static inline int min(int x, int y) { return x < y ? x : y; }

// What intrinsics.cuh has instructions for.

struct half_t { unsigned short bits; };
struct bfloat_t { unsigned short bits; };
struct tf32_t {};

static inline unsigned bits_of(float x) { unsigned bits; __builtin_memcpy(&bits, &x, 4); return bits; }
static inline unsigned long long bits_of(double x) { unsigned long long bits; __builtin_memcpy(&bits, &x, 8); return bits; }
static inline float from_bits(unsigned bits) { float x; __builtin_memcpy(&x, &bits, 4); return x; }
static inline double from_bits(unsigned long long bits) { double x; __builtin_memcpy(&x, &bits, 8); return x; }

float widen(half_t x);
static inline float widen(bfloat_t x) { return from_bits((unsigned)x.bits << 16); }
half_t to_half(float x);
bfloat_t to_bfloat(float x);
unsigned to_tf32(float x);
static inline unsigned pack(float low, float high, half_t) { return to_half(low).bits | (unsigned)to_half(high).bits << 16; }
static inline unsigned pack(float low, float high, bfloat_t) { return to_bfloat(low).bits | (unsigned)to_bfloat(high).bits << 16; }

void multiply_tiles(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], half_t);
void multiply_tiles(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], bfloat_t);
void multiply_tiles(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], tf32_t);
void load_squares(unsigned& a, unsigned& b, unsigned& c, unsigned& d, const void* row);
void load_squares_turned(unsigned& a, unsigned& b, unsigned& c, unsigned& d, const void* row);
void copy_16_bytes(void* to, const void* from, bool wanted);
void wait_for_copies();
