// Functions that kernels call. They are defined for all numbers: nothing is undefined, whatever the operands are.

template <class T> __device__ inline T not_a_number();
template <> __device__ inline float not_a_number<float>() { return from_bits(0x7fc00000u); }
template <> __device__ inline double not_a_number<double>() { return from_bits(0x7ff8000000000000ull); }
template <class T> __device__ inline T infinity();
template <> __device__ inline float infinity<float>() { return from_bits(0x7f800000u); }
template <> __device__ inline double infinity<double>() { return from_bits(0x7ff0000000000000ull); }

template <class T> struct unsigned_of { typedef T type; };
template <> struct unsigned_of<signed char> { typedef unsigned char type; };
template <> struct unsigned_of<short> { typedef unsigned short type; };
template <> struct unsigned_of<int> { typedef unsigned type; };
template <> struct unsigned_of<long long> { typedef unsigned long long type; };

// Of two equal ones (0 and -0) the second; a NaN in either wins.
template <class T> __device__ inline T maximum(T x, T y) { return x != x || x > y ? x : y; }
template <class T> __device__ inline T minimum(T x, T y) { return x != x || x < y ? x : y; }

__device__ inline bool is_negative(float x) { return bits_of(x) >> 31; }
__device__ inline bool is_negative(double x) { return bits_of(x) >> 63; }

template <class T> __device__ inline T sigmoid(T x) { return T(1) / (T(1) + exp(-x)); }

// The derivative of lgamma: by its asymptotic series for large numbers, from these by recurrence, and left of zero by reflection
// (NIST Digital Library of Mathematical Functions, 5.11.2, 5.5.2 and 5.5.4). Single precision would not do near its zeros.
__device__ inline double digamma(double x) {
  if (x == 0) return copysign(infinity<double>(), -x);
  const double pi = 3.141592653589793;
  double sum = 0;
  if (x < 0) {
    const double rest = x - rint(x);
    if (rest == 0) return not_a_number<double>();
    sum = -pi / tan(pi * rest);
    x = 1 - x;
  }
  for (; x < 10; x += 1) sum -= 1 / x;
  const double t = 1 / (x * x);
  const double series = 1.0 / 12 - t * (1.0 / 120 - t * (1.0 / 252 - t * (1.0 / 240 - t * (
      1.0 / 132 - t * (691.0 / 32760 - t / 12)))));
  return sum + (log(x) - 0.5 / x - t * series);
}
__device__ inline float digamma(float x) { return (float)digamma((double)x); }

template <class T> __device__ inline T power_2(T x) { return x * x; }
template <class T> __device__ inline T power_3(T x) { return x * (x * x); }
template <class T> __device__ inline T power_4(T x) { return power_2(power_2(x)); }

// Division

template <class T> __device__ inline bool overflows(T x, T y) {  // in two's complement, the least number by -1
  return T(-1) < T(0) && y == T(-1) && x == (T)((typename unsigned_of<T>::type)1 << (8 * sizeof(T) - 1));
}

template <class T> __device__ inline T floor_divide(T x, T y) {  // rounded down; 0 where y is 0
  if (y == 0) return 0;
  if (overflows(x, y)) return x;
  const T quotient = (T)(x / y), rest = (T)(x - quotient * y);
  return (T)(rest != 0 && (rest < 0) != (y < 0) ? quotient - 1 : quotient);
}

template <class T> __device__ inline T remainder_of(T x, T y) {  // of the divisor's sign; 0 where y is 0
  if (y == 0 || overflows(x, y)) return 0;
  const T rest = (T)(x % y);
  return (T)(rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest);
}

template <class T> __device__ inline T integer_fmod(T x, T y) {  // of the dividend's sign; 0 where y is 0
  return y == 0 || overflows(x, y) ? T(0) : (T)(x % y);
}

template <class T> __device__ inline T float_remainder(T x, T y) {  // of the divisor's sign, zeros too; NaN where y is 0
  const T rest = fmod(x, y);
  if (rest == 0 && y != 0) return copysign(T(0), y);
  return (rest < 0) != (y < 0) ? rest + y : rest;
}

// By the exact remainder: floor(x / y) would be one too high where the quotient is rounded up to a whole number.
template <class T> __device__ inline T float_floor_divide(T x, T y) {
  const T ratio = x / y;
  if (y == 0) return ratio;
  const T rest = fmod(x, y);
  T whole = (x - rest) / y;
  if (rest != 0 && (rest < 0) != (y < 0)) whole -= 1;
  if (whole == 0) return copysign(T(0), ratio);
  const T down = floor(whole);
  return whole - down > T(0.5) ? down + 1 : down;
}

__device__ inline float remainder_of(float x, float y) { return float_remainder(x, y); }
__device__ inline double remainder_of(double x, double y) { return float_remainder(x, y); }
__device__ inline float floor_divide(float x, float y) { return float_floor_divide(x, y); }
__device__ inline double floor_divide(double x, double y) { return float_floor_divide(x, y); }

// Modulo 2^bits; 1 / x^-y truncated where y < 0, and 0 where that is 1 / 0.
template <class T> __device__ inline T integer_power(T x, T y) {
  if (y < 0) return x == 1 ? T(1) : x == T(-1) ? (y % 2 ? T(-1) : T(1)) : T(0);
  unsigned long long power = 1, base = (unsigned long long)x, left = (unsigned long long)y;
  for (; left; left >>= 1, base *= base)
    if (left & 1) power *= base;
  return (T)power;
}

// Shifts: by as many bits as there are, or by a negative number, shifts everything out.

template <class T> __device__ inline T shift_left(T x, T y) {
  typedef typename unsigned_of<T>::type U;
  return (U)y < 8 * sizeof(T) ? (T)(U)((unsigned long long)(U)x << (U)y) : T(0);
}

template <class T> __device__ inline T shift_right(T x, T y) {
  typedef typename unsigned_of<T>::type U;
  return (U)y < 8 * sizeof(T) ? (T)(x >> (U)y) : (x < 0 ? T(-1) : T(0));
}

// Conversion

template <class T> __device__ inline int to_int(T x) {
  return x > T(-2147483649.0) && x < T(2147483648.0) && x >= T(-2147483648.0) ? (int)x : (-2147483647 - 1);
}

template <> __device__ inline int to_int(double x) {
  return x > -2147483649.0 && x < 2147483648.0 ? (int)x : (-2147483647 - 1);
}

template <class T> __device__ inline long long to_long(T x) {
  const T limit = T(9223372036854775808.0);
  return x >= -limit && x < limit ? (long long)x : (-9223372036854775807LL - 1);
}

template <class T> __device__ inline unsigned long long to_unsigned_long(T x) {
  const T limit = T(9223372036854775808.0);
  return x >= limit ? (unsigned long long)to_long(x - limit) ^ (1ull << 63) : (unsigned long long)to_long(x);
}

// In single precision, but rounded so that rounding once more, to a half, gives what rounding once would have.
__device__ inline float round_to_odd(double x) {
  unsigned long long bits = bits_of(x);
  const unsigned long long rest = (1ull << 29) - 1;
  bits = (bits & ~rest) | ((bits & rest) != 0 ? 1ull << 29 : 0);
  return (float)from_bits(bits);
}

// What a group of T threads holds together: T is a power of two, and a group is a part of one warp, or the whole block.

template <int T> __device__ inline unsigned group_mask() {
  return T >= 32 ? 0xffffffffu : ((1u << (T & 31)) - 1) << (threadIdx.x % 32 & ~(T - 1));
}

template <int T> __device__ inline void group_sync() {
  if (T > 32) __syncthreads();
  else if (T > 1) __syncwarp(group_mask<T>());
}

template <class V> __device__ inline V exchange(unsigned mask, V value, int distance) {
  return (V)__shfl_xor_sync(mask, value, distance);
}
template <> __device__ inline bool exchange(unsigned mask, bool value, int distance) {
  return __shfl_xor_sync(mask, (int)value, distance) != 0;
}
template <> __device__ inline signed char exchange(unsigned mask, signed char value, int distance) {
  return (signed char)__shfl_xor_sync(mask, (int)value, distance);
}
template <> __device__ inline unsigned char exchange(unsigned mask, unsigned char value, int distance) {
  return (unsigned char)__shfl_xor_sync(mask, (int)value, distance);
}
template <> __device__ inline short exchange(unsigned mask, short value, int distance) {
  return (short)__shfl_xor_sync(mask, (int)value, distance);
}
template <> __device__ inline unsigned short exchange(unsigned mask, unsigned short value, int distance) {
  return (unsigned short)__shfl_xor_sync(mask, (int)value, distance);
}

struct sum_of {
  template <class V> __device__ V operator()(V x, V y) const { return (V)(x + y); }
  __device__ bool operator()(bool x, bool y) const { return x || y; }
  __device__ int operator()(int x, int y) const { return (int)((unsigned)x + (unsigned)y); }
  __device__ long long operator()(long long x, long long y) const {
    return (long long)((unsigned long long)x + (unsigned long long)y);
  }
};
struct max_of { template <class V> __device__ V operator()(V x, V y) const { return maximum(x, y); } };
struct min_of { template <class V> __device__ V operator()(V x, V y) const { return minimum(x, y); } };

// The values of a group's threads combined, in an order that is always the same; all of its threads get the result.
template <int T, class Combine, class V> __device__ inline V combine_group(V value) {
  const Combine combine{};
  for (int distance = 1; distance < (T < 32 ? T : 32); distance *= 2)
    value = combine(value, exchange(group_mask<T>(), value, distance));
  if (T > 32) {
    __shared__ V warps[T > 32 ? T / 32 : 1];
    __syncthreads();  // those of the last reduction have been read
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = warps[0];
    for (int warp = 1; warp < T / 32; ++warp) value = combine(value, warps[warp]);
  }
  return value;
}

// V numbers that stand side by side: at an address that is a multiple of what they take together, or at any.

template <class T, int V> struct alignas(sizeof(T) * V) vector_of { T at[V]; };

template <int V, class T> __device__ inline void load_vector(T* to, const T* from) {
  const vector_of<T, V> all = *(const vector_of<T, V>*)from;
#pragma unroll
  for (int j = 0; j < V; ++j) to[j] = all.at[j];
}

template <int V, class T> __device__ inline void store_vector(T* to, const T* from) {
  vector_of<T, V> all;
#pragma unroll
  for (int j = 0; j < V; ++j) all.at[j] = from[j];
  *(vector_of<T, V>*)to = all;
}

template <int V, class T> __device__ inline void load_each(T* to, const T* from) {
#pragma unroll
  for (int j = 0; j < V; ++j) to[j] = from[j];
}

template <int V, class T> __device__ inline void store_each(T* to, const T* from) { load_each<V>(to, from); }

template <int V, class T> __device__ inline void fill(T* to, T value) {
#pragma unroll
  for (int j = 0; j < V; ++j) to[j] = value;
}

// From memory to the tiles of a block, or zeros where it is not `wanted`: on its way until `wait_for_copies`, or at once.

template <int V, class T> __device__ inline void copy_vector(T* to, const T* from, bool wanted) {
  static_assert(sizeof(T) * V == 16, "copies are of 16 bytes");
  copy_16_bytes(to, from, wanted);
}

template <int V, class T> __device__ inline void copy_each(T* to, const T* from, bool wanted) {
#pragma unroll
  for (int j = 0; j < V; ++j) to[j] = wanted ? from[j] : T();
}
