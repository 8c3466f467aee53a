// CUDA's execution model on a CPU: the blocks of a launch run one after another, and each thread of a block is a fiber, which
// runs until it waits for others. What waits for threads that never come is found, and ends the launch.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <vector>

#define __device__
#define __global__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

struct index3 { unsigned x; };
static index3 threadIdx, blockIdx;

namespace emulator {

enum State { ready, at_block, at_warp, done };
constexpr size_t stack_bytes = 128 << 10;

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  State state;
  unsigned mask;
};

static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static unsigned current;
static void (*kernel)(void**);
static void** arguments;
static std::vector<unsigned long long> slots;  // a word of each thread, to be read by others

static void wait(State state, unsigned mask = 0) {
  Fiber& fiber = fibers[current];
  fiber.state = state;
  fiber.mask = mask;
  swapcontext(&fiber.context, &scheduler);
}

static void enter() {
  kernel(arguments);
  fibers[current].state = done;
}

static bool release(unsigned threads) {
  bool all = true, any = false;
  for (unsigned i = 0; i < threads; ++i) all = all && (fibers[i].state == at_block || fibers[i].state == done);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    if (fiber.state == at_block && all) {
      fiber.state = ready;
      any = true;
    }
  }
  std::vector<unsigned> met;
  for (unsigned i = 0; i < threads; ++i) {
    if (fibers[i].state != at_warp || !(fibers[i].mask >> (i % 32) & 1)) continue;
    bool together = true;
    for (unsigned lane = 0; lane < 32; ++lane) {
      const unsigned other = i / 32 * 32 + lane;
      if (fibers[i].mask >> lane & 1)
        together = together && other < threads && fibers[other].state == at_warp && fibers[other].mask == fibers[i].mask;
    }
    if (together) met.push_back(i);
  }
  for (unsigned i : met) fibers[i].state = ready;
  return any || !met.empty();
}

// 0, or 1 if threads wait for ever. Threads take turns upwards, or downwards: code whose result depends on that lacks a barrier.
static int launch(void (*function)(void**), void** values, unsigned blocks, unsigned threads, bool downwards) {
  kernel = function;
  arguments = values;
  std::vector<Fiber>(threads).swap(fibers);
  slots.resize(1024);
  for (unsigned block = 0; block < blocks; ++block) {
    blockIdx.x = downwards ? blocks - 1 - block : block;
    for (unsigned i = 0; i < threads; ++i) {
      Fiber& fiber = fibers[i];
      fiber.stack.resize(stack_bytes);
      fiber.state = ready;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.data();
      fiber.context.uc_stack.ss_size = stack_bytes;
      fiber.context.uc_link = &scheduler;
      makecontext(&fiber.context, enter, 0);
    }
    for (bool left = true; left;) {
      left = false;
      for (unsigned i = 0; i < threads; ++i) {
        current = downwards ? threads - 1 - i : i;
        if (fibers[current].state != ready) continue;
        threadIdx.x = current;
        swapcontext(&scheduler, &fibers[current].context);
      }
      const bool some = release(threads);
      for (unsigned i = 0; i < threads; ++i) left = left || fibers[i].state != done;
      if (left && !some) return 1;
    }
  }
  std::vector<Fiber>().swap(fibers);  // each library has its own, and there are many
  return 0;
}

template <class V> unsigned long long word(V value) {
  unsigned long long bits = 0;
  memcpy(&bits, &value, sizeof(V));
  return bits;
}

}  // namespace emulator

static void __syncthreads() { emulator::wait(emulator::at_block); threadIdx.x = emulator::current; }
static void __syncwarp(unsigned mask = 0xffffffffu) { emulator::wait(emulator::at_warp, mask); threadIdx.x = emulator::current; }

template <class V> V __shfl_xor_sync(unsigned mask, V value, int distance) {
  emulator::slots[threadIdx.x] = emulator::word(value);
  __syncwarp(mask);
  V other;
  memcpy(&other, &emulator::slots[threadIdx.x ^ (unsigned)distance], sizeof(V));
  __syncwarp(mask);
  return other;
}

using std::copysign; using std::exp; using std::exp2; using std::expm1; using std::fabs; using std::floor; using std::fma;
using std::fmod; using std::log; using std::log10; using std::log1p; using std::log2; using std::pow; using std::rint;
using std::sqrt; using std::tanh; using std::trunc; using std::ceil; using std::erf; using std::erfc; using std::sin;
using std::cos; using std::tan; using std::asin; using std::acos; using std::atan; using std::atan2; using std::sinh;
using std::cosh; using std::asinh; using std::acosh; using std::atanh;
static int min(int x, int y) { return x < y ? x : y; }

// What intrinsics.cuh has instructions for.

struct half_t { unsigned short bits; };
struct bfloat_t { unsigned short bits; };

static unsigned bits_of(float x) { unsigned bits; memcpy(&bits, &x, 4); return bits; }
static unsigned long long bits_of(double x) { unsigned long long bits; memcpy(&bits, &x, 8); return bits; }
static float from_bits(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
static double from_bits(unsigned long long bits) { double x; memcpy(&x, &bits, 8); return x; }

static float widen(bfloat_t x) { return from_bits((unsigned)x.bits << 16); }
static float widen(half_t x) {
  const unsigned sign = (unsigned)(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  if (exponent == 31) return from_bits(sign | 0x7f800000u | fraction << 13);
  const float magnitude = exponent ? std::ldexp(1024.0f + fraction, (int)exponent - 25) : std::ldexp((float)fraction, -24);
  return from_bits(sign | bits_of(magnitude));
}
static bfloat_t to_bfloat(float x) {
  const unsigned bits = bits_of(x);
  if (x != x) return {(unsigned short)(bits >> 16 | 0x40)};
  return {(unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
static half_t to_half(float x) {
  const unsigned short sign = (unsigned short)(bits_of(x) >> 16 & 0x8000);
  const float magnitude = std::fabs(x);
  if (x != x) return {(unsigned short)(sign | 0x7e00)};
  if (magnitude == 0) return {sign};
  if (magnitude >= 65520.0f) return {(unsigned short)(sign | 0x7c00)};
  int exponent;
  std::frexp(magnitude, &exponent);
  exponent = exponent < -13 ? -13 : exponent;  // subnormal numbers have the exponent of the least normal ones
  const unsigned units = (unsigned)std::rint(std::ldexp(magnitude, 11 - exponent));  // of the last place, 2048 at most
  return {(unsigned short)(sign | (units + ((unsigned)(exponent + 13) << 10)))};
}

template <class H> void multiply_tiles(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], H) {
  const unsigned lane = threadIdx.x % 32, first = threadIdx.x / 32 * 32;
  static unsigned published[1024][6];
  memcpy(published[threadIdx.x], a, 16);
  memcpy(published[threadIdx.x] + 4, b, 8);
  __syncwarp();
  for (int c = 0; c < 4; ++c) {
    const unsigned row = lane / 4 + c / 2 * 8, column = lane % 4 * 2 + c % 2;
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned x = published[first + row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2] >> k % 2 * 16;
      const unsigned y = published[first + column * 4 + k % 8 / 2][4 + k / 8] >> k % 2 * 16;
      d[c] += widen(H{(unsigned short)x}) * widen(H{(unsigned short)y});
    }
  }
  __syncwarp();
}

struct tf32_t {};

static unsigned to_tf32(float x) {  // to the nearest of 11 bits, away from zero where there are two
  const unsigned bits = bits_of(x);
  return x != x || (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}

static void multiply_tiles(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], tf32_t) {
  const unsigned lane = threadIdx.x % 32, first = threadIdx.x / 32 * 32;
  static unsigned published[1024][6];
  memcpy(published[threadIdx.x], a, 16);
  memcpy(published[threadIdx.x] + 4, b, 8);
  __syncwarp();
  for (int c = 0; c < 4; ++c) {
    const unsigned row = lane / 4 + c / 2 * 8, column = lane % 4 * 2 + c % 2;
    for (unsigned k = 0; k < 8; ++k)
      d[c] += from_bits(published[first + row % 8 * 4 + k % 4][row / 8 + k / 4 * 2])
              * from_bits(published[first + column * 4 + k % 4][4 + k / 4]);
  }
  __syncwarp();
}

static void load_squares(unsigned& a, unsigned& b, unsigned& c, unsigned& d, const void* row, bool turned = false) {
  const unsigned lane = threadIdx.x % 32, first = threadIdx.x / 32 * 32;
  static const unsigned short* rows[1024];
  unsigned* results[4] = {&a, &b, &c, &d};
  rows[threadIdx.x] = (const unsigned short*)row;
  __syncwarp();
  for (unsigned s = 0; s < 4; ++s) {
    const unsigned short* const* const square = rows + first + 8 * s;
    const unsigned near = lane % 4 * 2, far = lane / 4;
    const unsigned low = turned ? square[near][far] : square[far][near];
    const unsigned high = turned ? square[near + 1][far] : square[far][near + 1];
    *results[s] = low | high << 16;
  }
  __syncwarp();
}
static void load_squares_turned(unsigned& a, unsigned& b, unsigned& c, unsigned& d, const void* row) {
  load_squares(a, b, c, d, row, true);
}

static void copy_16_bytes(void* to, const void* from, bool wanted) {
  if (((size_t)to | (size_t)from) % 16) abort();  // as the GPU would
  if (wanted) memcpy(to, from, 16);
  else memset(to, 0, 16);
}
static void wait_for_copies() {}
