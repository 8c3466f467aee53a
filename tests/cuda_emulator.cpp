// CUDA's execution model on a CPU: the blocks of a launch run one after another, and each thread of a block is a fiber, which
// runs until it waits for others. What waits for threads that never come is found, and ends the launch.

#include "cuda_emulator.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

index3 threadIdx, blockIdx;

namespace {

// A fiber's registers and stack. `ucontext` asks the system for the signals' mask at each switch, which takes longer than most
// of what happens between two of them.

#if defined(__x86_64__)
struct Context { void* stack; };
extern "C" void emulator_switch(Context* from, Context* to);
asm(".text\n.globl emulator_switch\n.hidden emulator_switch\nemulator_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq (%rsi), %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");

void start(Context& context, char* stack, size_t bytes, void (*function)()) {
  void** top = (void**)(stack + bytes) - 1;  // where a function finds the address that it returns to
  *top = nullptr;
  *--top = (void*)function;
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context.stack = top;
}
#else
typedef ucontext_t Context;
void emulator_switch(Context* from, Context* to) { swapcontext(from, to); }

void start(Context& context, char* stack, size_t bytes, void (*function)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = bytes;
  context.uc_link = nullptr;
  makecontext(&context, function, 0);
}
#endif

enum State { ready, at_block, at_warp, done };
constexpr size_t stack_bytes = 128 << 10;
constexpr unsigned most_threads = 1024;

struct Copy {
  void* to;
  const void* from;
  bool wanted;
};

struct Fiber {
  Context context;
  State state;
  unsigned mask;
  std::vector<Copy> copies;
};

Fiber fibers[most_threads];
Context scheduler;
void (*kernel)(void**);
void** arguments;
unsigned long long words[most_threads];  // of each thread, to be read by others

void wait(State state, unsigned mask = 0) {
  Fiber& fiber = fibers[threadIdx.x];
  fiber.state = state;
  fiber.mask = mask;
  emulator_switch(&fiber.context, &scheduler);
}

void enter() {
  kernel(arguments);
  fibers[threadIdx.x].state = done;
  emulator_switch(&fibers[threadIdx.x].context, &scheduler);
}

bool release_warp(unsigned first, unsigned threads) {
  bool any = false;
  for (unsigned lane = 0; lane < 32 && first + lane < threads; ++lane) {
    const Fiber& fiber = fibers[first + lane];
    const unsigned mask = fiber.mask;
    if (fiber.state != at_warp || !(mask >> lane & 1)) continue;
    bool together = true;
    for (unsigned other = 0; other < 32; ++other)
      if (mask >> other & 1)
        together = together && first + other < threads && fibers[first + other].state == at_warp
                   && fibers[first + other].mask == mask;
    if (!together) continue;
    any = true;
    for (unsigned other = 0; other < 32; ++other)
      if (mask >> other & 1) fibers[first + other].state = ready;
  }
  return any;
}

bool release_block(unsigned threads) {
  bool all = true, any = false;
  for (unsigned i = 0; i < threads; ++i) {
    all = all && (fibers[i].state == at_block || fibers[i].state == done);
    any = any || fibers[i].state == at_block;
  }
  for (unsigned i = 0; all && i < threads; ++i)
    if (fibers[i].state == at_block) fibers[i].state = ready;
  return all && any;
}

}  // namespace

// 0, or 1 if threads wait for ever. Warps take turns upwards, or downwards, each of them until it waits for the whole block, and
// so do threads within a warp: code whose result depends on that lacks a barrier.
extern "C" int emulator_launch(void (*function)(void**), void** values, unsigned blocks, unsigned threads, int downwards) {
  static char* const stacks = (char*)mmap(nullptr, most_threads * stack_bytes, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (threads > most_threads || stacks == MAP_FAILED) abort();
  kernel = function;
  arguments = values;
  for (unsigned block = 0; block < blocks; ++block) {
    blockIdx.x = downwards ? blocks - 1 - block : block;
    for (unsigned i = 0; i < threads; ++i) {
      fibers[i].state = ready;
      fibers[i].copies.clear();
      start(fibers[i].context, stacks + i * stack_bytes, stack_bytes, enter);
    }
    const unsigned warps = (threads + 31) / 32;
    for (;;) {
      for (unsigned w = 0; w < warps; ++w) {
        const unsigned first = (downwards ? warps - 1 - w : w) * 32;
        do {
          for (unsigned i = 0; i < 32; ++i) {
            threadIdx.x = first + (downwards ? 31 - i : i);
            if (threadIdx.x >= threads) continue;
            Fiber& fiber = fibers[threadIdx.x];
            if (fiber.state == ready) emulator_switch(&scheduler, &fiber.context);
          }
        } while (release_warp(first, threads));
      }
      bool all_done = true;
      for (unsigned i = 0; i < threads; ++i) all_done = all_done && fibers[i].state == done;
      if (all_done) break;
      if (!release_block(threads)) return 1;
    }
  }
  return 0;
}

void __syncthreads() { wait(at_block); }
void __syncwarp(unsigned mask) { wait(at_warp, mask); }

unsigned long long exchange_word(unsigned mask, unsigned long long word, int distance) {
  const unsigned thread = threadIdx.x;
  words[thread] = word;
  __syncwarp(mask);
  const unsigned long long other = words[thread ^ (unsigned)distance];
  __syncwarp(mask);
  return other;
}

// Numbers

float widen(half_t x) {
  const unsigned sign = (unsigned)(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  if (exponent == 0) return from_bits(sign | bits_of((float)fraction * 0x1p-24f));
  return from_bits(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13);
}

half_t to_half(float x) {
  const unsigned short sign = (unsigned short)(bits_of(x) >> 16 & 0x8000);
  const float magnitude = fabs(x);
  if (x != x) return {(unsigned short)(sign | 0x7e00)};
  if (magnitude == 0) return {sign};
  if (magnitude >= 65520.0f) return {(unsigned short)(sign | 0x7c00)};
  int exponent;
  __builtin_frexpf(magnitude, &exponent);
  exponent = exponent < -13 ? -13 : exponent;  // subnormal numbers have the exponent of the least normal ones
  const unsigned units = (unsigned)rint(__builtin_ldexpf(magnitude, 11 - exponent));  // of the last place, 2048 at most
  return {(unsigned short)(sign | (units + ((unsigned)(exponent + 13) << 10)))};
}

bfloat_t to_bfloat(float x) {
  const unsigned bits = bits_of(x);
  if (x != x) return {(unsigned short)(bits >> 16 | 0x40)};
  return {(unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

unsigned to_tf32(float x) {  // to the nearest of 11 bits, away from zero where there are two
  const unsigned bits = bits_of(x);
  return x != x || (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}

// Matrices of a warp

template <class H> static void multiply_halves(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  const unsigned lane = threadIdx.x % 32, first = threadIdx.x - lane;
  static float published[most_threads][12];
  for (unsigned i = 0; i < 8; ++i) published[threadIdx.x][i] = widen(H{(unsigned short)(a[i / 2] >> i % 2 * 16)});
  for (unsigned i = 0; i < 4; ++i) published[threadIdx.x][8 + i] = widen(H{(unsigned short)(b[i / 2] >> i % 2 * 16)});
  __syncwarp();
  for (unsigned c = 0; c < 4; ++c) {
    const unsigned row = lane / 4 + c / 2 * 8, column = lane % 4 * 2 + c % 2;
    for (unsigned k = 0; k < 16; ++k)
      d[c] += published[first + row % 8 * 4 + k % 8 / 2][(row / 8 + k / 8 * 2) * 2 + k % 2]
              * published[first + column * 4 + k % 8 / 2][8 + k / 8 * 2 + k % 2];
  }
  __syncwarp();
}

void multiply_tiles(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], half_t) { multiply_halves<half_t>(d, a, b); }
void multiply_tiles(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], bfloat_t) { multiply_halves<bfloat_t>(d, a, b); }

void multiply_tiles(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], tf32_t) {
  const unsigned lane = threadIdx.x % 32, first = threadIdx.x - lane;
  static unsigned published[most_threads][6];
  memcpy(published[threadIdx.x], a, 16);
  memcpy(published[threadIdx.x] + 4, b, 8);
  __syncwarp();
  for (unsigned c = 0; c < 4; ++c) {
    const unsigned row = lane / 4 + c / 2 * 8, column = lane % 4 * 2 + c % 2;
    for (unsigned k = 0; k < 8; ++k)
      d[c] += from_bits(published[first + row % 8 * 4 + k % 4][row / 8 + k / 4 * 2])
              * from_bits(published[first + column * 4 + k % 4][4 + k / 4]);
  }
  __syncwarp();
}

static void load(unsigned* const (&results)[4], const void* row, bool turned) {
  const unsigned lane = threadIdx.x % 32, first = threadIdx.x - lane;
  static const unsigned short* rows[most_threads];
  if ((size_t)row % 16) abort();  // as the GPU would
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

void load_squares(unsigned& a, unsigned& b, unsigned& c, unsigned& d, const void* row) { load({&a, &b, &c, &d}, row, false); }
void load_squares_turned(unsigned& a, unsigned& b, unsigned& c, unsigned& d, const void* row) {
  load({&a, &b, &c, &d}, row, true);
}

// Copies: none is done before its thread waits for it

void copy_16_bytes(void* to, const void* from, bool wanted) {
  if (((size_t)to | (size_t)from) % 16) abort();  // as the GPU would
  memset(to, 0xA5, 16);
  fibers[threadIdx.x].copies.push_back({to, from, wanted});
}

void wait_for_copies() {
  std::vector<Copy>& copies = fibers[threadIdx.x].copies;
  for (const Copy& copy : copies) {
    if (copy.wanted) memcpy(copy.to, copy.from, 16);
    else memset(copy.to, 0, 16);
  }
  copies.clear();
}
