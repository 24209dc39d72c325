// Fibers: many stacks on one thread of the operating system, one of them running at a time.
//
//   launcher  --enter-->  fiber  --switch_to-->  fiber  --end-->  fiber … --end-->  launcher
//
// The launcher is whoever called enter(), on its own stack. The outermost frame of every fiber says
// in its call-frame information that it was called from there: a backtrace leads from a kernel to
// the launch, and on to the operation that asked for it.
//
// The context switch is for x86-64 Linux and keeps the registers that a call keeps (System V ABI).
// Of these it leaves out the floating-point control words (mxcsr, x87): all fibers of the engine
// round alike.
#pragma once

#include <cstddef>

namespace mocograd::emulator {

// Where something that does not run will go on.
struct Context {
  void* stack_pointer = nullptr;
  const void* stack = nullptr;  // its lowest byte
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's, while it does not run
  void* tsan_fiber = nullptr;
};

class Fiber {
 public:
  static constexpr size_t kStackBytes = size_t{256} << 10;

  Fiber();  // with a stack of its own; below it lies a page that must not be touched
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next switch to this fiber calls run(), which must not return: it calls end().
  // Requires: the fiber is new or has ended.
  void begin_with(void (*run)());

  static void enter(Fiber& first);            // returns once a fiber ends with nothing to follow
  void switch_to(Fiber& next);                // returns when somebody switches back
  [[noreturn]] static void end(Fiber* next);  // the running fiber's; nullptr: back to the launcher

  // From now on a fiber that runs over the end of its stack calls report() and dies. Without this it
  // dies by SIGSEGV. Does nothing under a sanitizer, which has its own report.
  static void report_overflow(void (*report)());

 private:
  void* memory_;
  Context context_;
};

}  // namespace mocograd::emulator
