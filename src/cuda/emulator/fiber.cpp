#include "cuda/emulator/fiber.h"

#include <signal.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "tensor/error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#if !defined(__x86_64__) || !defined(__linux__)
#error "the CUDA emulator's context switch is written for x86-64 Linux"
#endif

extern "C" {
// Stores where the running context has to go on, and goes on where another one has stored it.
void mocograd_switch_stack(void** stack_pointer, void* next_stack_pointer);
void mocograd_fiber_entry();
void mocograd_fiber_main();
}

// A suspended context's stack holds, from its stack pointer upwards, the six registers pushed here
// and the address to return to.
//
// mocograd_fiber_entry is where a new fiber's first switch "returns" to. What its stack pointer points
// to is the address of the variable that holds the launcher's stack pointer. Its frame is described
// as one called from there: the canonical frame address (CFA) is **rsp + 56, above the launcher's six
// registers and its address of return.
//   0x0f 6: DW_CFA_def_cfa_expression of 6 bytes; 0x77 0: rsp; 0x06: load; 0x06: load; 0x23 56: add 56
asm(R"(
.text
.globl mocograd_switch_stack
.type mocograd_switch_stack, @function
mocograd_switch_stack:
  .cfi_startproc
  .irp register, rbp, rbx, r12, r13, r14, r15
    pushq %\register
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %\register, 0
  .endr
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  .irp register, r15, r14, r13, r12, rbx, rbp
    popq %\register
    .cfi_adjust_cfa_offset -8
    .cfi_restore %\register
  .endr
  ret
  .cfi_endproc
.size mocograd_switch_stack, .-mocograd_switch_stack

.globl mocograd_fiber_entry
.type mocograd_fiber_entry, @function
  .cfi_startproc
  .cfi_escape 0x0f, 6, 0x77, 0, 0x06, 0x06, 0x23, 56
  .set offset, -8
  .irp register, rip, rbp, rbx, r12, r13, r14, r15
    .cfi_offset %\register, offset
    .set offset, offset - 8
  .endr
mocograd_fiber_entry:
  call mocograd_fiber_main
  ud2
  .cfi_endproc
.size mocograd_fiber_entry, .-mocograd_fiber_entry
)");

namespace mocograd::emulator {
namespace {

constexpr size_t kGuardBytes = 4096;

Context launcher;
Context* running = nullptr;
Context* previous = nullptr;    // whom the running context was switched to from
void (*fiber_run)() = nullptr;  // what a fiber calls when it is first switched to
void (*overflow_report)() = nullptr;

// Called on the new stack, before anything else.
void arrived() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(running->fake_stack, &previous->stack, &previous->stack_bytes);
#endif
}

void go(Context& next, [[maybe_unused]] bool running_ends) {
  previous = std::exchange(running, &next);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(running_ends ? nullptr : &previous->fake_stack, next.stack,
                                 next.stack_bytes);
#elif defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(next.tsan_fiber, 0);
#endif
  mocograd_switch_stack(&previous->stack_pointer, next.stack_pointer);
  arrived();
}

[[maybe_unused]] void on_segmentation_fault(int, siginfo_t* info, void*) {
  signal(SIGSEGV, SIG_DFL);  // returning runs into the same fault again, and dies of it
  if (running == nullptr || running == &launcher) return;
  const auto* fault = static_cast<const unsigned char*>(info->si_addr);
  const auto* stack = static_cast<const unsigned char*>(running->stack);
  if (fault < stack && fault >= stack - kGuardBytes) overflow_report();
}

}  // namespace

Fiber::Fiber() {
  memory_ = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  MOCO_CHECK(memory_ != MAP_FAILED,
             "cuda emulator: no memory for another stack: ", std::strerror(errno));
  mprotect(memory_, kGuardBytes, PROT_NONE);
  context_.stack = static_cast<unsigned char*>(memory_) + kGuardBytes;
  context_.stack_bytes = kStackBytes;
#if defined(__SANITIZE_THREAD__)
  context_.tsan_fiber = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
  munmap(memory_, kGuardBytes + kStackBytes);
#if defined(__SANITIZE_THREAD__)
  __tsan_destroy_fiber(context_.tsan_fiber);
#endif
}

void Fiber::begin_with(void (*run)()) {
  constexpr size_t kRegisters = 6;
  fiber_run = run;
#if defined(__SANITIZE_ADDRESS__)
  // What ended on this stack left its outermost frames behind.
  __asan_unpoison_memory_region(context_.stack, context_.stack_bytes);
#endif
  auto* frame =
      reinterpret_cast<void**>(static_cast<unsigned char*>(memory_) + kGuardBytes + kStackBytes) -
      2;
  frame[0] = &launcher.stack_pointer;
  *--frame = reinterpret_cast<void*>(&mocograd_fiber_entry);
  for (size_t i = 0; i < kRegisters; ++i) *--frame = nullptr;
  context_.stack_pointer = frame;
  context_.fake_stack = nullptr;
}

void Fiber::enter(Fiber& first) {
  running = &launcher;
#if defined(__SANITIZE_THREAD__)
  launcher.tsan_fiber = __tsan_get_current_fiber();
#endif
  go(first.context_, false);
}

void Fiber::switch_to(Fiber& next) {
  go(next.context_, false);
}

void Fiber::end(Fiber* next) {
  go(next != nullptr ? next->context_ : launcher, true);
  __builtin_unreachable();
}

void Fiber::report_overflow([[maybe_unused]] void (*report)()) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  struct sigaction present {};
  sigaction(SIGSEGV, nullptr, &present);
  if (present.sa_handler != SIG_DFL) return;
  overflow_report = report;
  // The fiber's own stack is used up by then.
  constexpr size_t kSignalStackBytes = size_t{64} << 10;
  thread_local const auto signal_stack = std::make_unique<unsigned char[]>(kSignalStackBytes);
  const stack_t stack{.ss_sp = signal_stack.get(), .ss_flags = 0, .ss_size = kSignalStackBytes};
  sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_sigaction = on_segmentation_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, nullptr);
#endif
}

}  // namespace mocograd::emulator

void mocograd_fiber_main() {
  mocograd::emulator::arrived();
  mocograd::emulator::fiber_run();
}
