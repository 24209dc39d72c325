# mocograd. `make help` lists the targets.

BUILD ?= build
MODE ?= release
CXX ?= g++
CC ?= gcc

# As many jobs as there are processors, unless -j says otherwise.
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc)
endif

# ---- flags -----------------------------------------------------------------------------------------

FLAGS_release = -O3 -g1
FLAGS_debug = -O0 -g3 -fno-omit-frame-pointer
# With sanitizers GCC 12 warns of what <regex> does (bug 105616).
FLAGS_asan = -Wno-maybe-uninitialized -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
FLAGS_tsan = -O1 -g -fno-omit-frame-pointer -fsanitize=thread

# -ffp-contract=fast is GCC's default for a*b + c; it is written out because results depend on it.
# -ffile-prefix-map is not needed: sources are compiled by their path from this folder.
COMMON = -std=c++20 -Wall -Wextra -Wno-restrict -Isrc -I$(BUILD)/embedded -MMD -MP -pthread -ffp-contract=fast -fno-math-errno \
         $(FLAGS_$(MODE)) $(CXXFLAGS)
LDLIBS += -lz -pthread -ldl
# Lets the emulator find the __shared__ variables of its kernels.
LDFLAGS += -Wl,-T,src/cuda/emulator/shared_memory.ld
comma = ,
# Of the program alone, not of who links the library: downloading and unpacking, line editing.
CLI_LDLIBS = -lcurl -larchive -lcrypto -ledit

# ---- CUDA ------------------------------------------------------------------------------------------

# The GPU is built in where there is an nvcc of CUDA 12 or newer; `make CUDA=0` leaves it out. Code is
# made for the GPUs of CUDA_ARCHS, and for newer ones by the driver when they first run it, from
# CUDA_PTX. For your own GPU alone, which compiles faster:  make CUDA_ARCHS=89 CUDA_PTX=
ifndef NVCC
NVCC := $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
endif
CUDA_ARCHS ?= 75 80 90a
CUDA_PTX ?= 80

NVCC_MAJOR := $(if $(NVCC),$(shell $(NVCC) --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p'))
# Sanitizers cannot look into a GPU.
ifndef CUDA
CUDA := $(if $(filter release debug,$(MODE)),$(shell [ "0$(NVCC_MAJOR)" -ge 12 ] && echo 1 || echo 0),0)
endif

ifeq ($(CUDA)$(NVCC),1)
$(error CUDA=1 needs nvcc, which is neither in PATH nor in /usr/local/cuda/bin; NVCC=FILE names it)
endif

NVCC_FLAGS_release = -O3 -lineinfo
NVCC_FLAGS_debug = -O0 -g -G
NVCC_FLAGS = -std=c++20 -ccbin $(CXX) -Isrc -MMD -MP -Wno-deprecated-gpu-targets $(NVCC_FLAGS_$(MODE)) \
             $(foreach arch,$(CUDA_ARCHS),-gencode arch=compute_$(arch),code=sm_$(arch)) \
             $(foreach arch,$(CUDA_PTX),-gencode arch=compute_$(arch),code=compute_$(arch)) \
             $(if $(filter 90a,$(CUDA_ARCHS)),-DMOCO_HAS_SM90A)
ifeq ($(CUDA),1)
# The runtime is linked into the program, which then needs no CUDA where it runs, only the driver.
LDLIBS += -L$(dir $(NVCC))../lib64 -lcudart_static -ldl -lrt
endif

# ---- sources ---------------------------------------------------------------------------------------

# The kernel families are built once per instruction set, everything else once (src/cpu/cpu_backend.h).
KERNELS = gemm conv2d conv2d_weight winograd winograd_weight batch_norm pointwise rows pool loss info_nce optimizer augment peak_loop \
          $(LADDER:%=ladder/%)
# From the plain loops to the engine's kernels, one idea a file (docs/KERNELS.md).
LADDER = gemm_1_naive gemm_2_loop_order gemm_3_vectors gemm_4_register_tile gemm_5_packing \
         conv_1_naive conv_2_vectors conv_3_im2col conv_4_pointers rungs
ISAS = baseline avx2 avx512
ISA_FLAGS_baseline =
ISA_FLAGS_avx2 = -mavx2 -mfma -mprefer-vector-width=256
ISA_FLAGS_avx512 = -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mprefer-vector-width=512

KERNEL_SOURCES = $(KERNELS:%=src/cpu/%.cpp)
LIB_FLOORS = tensor cpu cpu/ladder cuda cuda/emulator cuda/ladder autograd autograd/ops nn data moco io debug
LIB_SOURCES = $(filter-out $(KERNEL_SOURCES) $(if $(filter 1,$(CUDA)),src/cuda/no_device.cpp),\
                $(foreach floor,$(LIB_FLOORS),$(wildcard src/$(floor)/*.cpp)))
CLI_SOURCES = $(wildcard src/cli/*.cpp)
TEST_SOURCES = $(wildcard tests/*.cpp)
# The CUDA sources, which g++ compiles for the emulator (docs/EMULATOR.md) and nvcc for the GPU.
CUDA_SOURCES = $(wildcard src/cuda/*.cu src/cuda/ladder/*.cu)
GPU_ONLY = src/cuda/runtime_device.cu src/cuda/kernel_times.cu
CUDA_TEST_SOURCES = $(wildcard tests/*.cu)
FORMATTED = $(wildcard src/*/*.h src/*/*.cpp src/*/*.cu src/*/*/*.h src/*/*/*.cpp src/*/*/*.cu tests/*.h tests/*.cpp tests/*.cu examples/*.cpp)
EXAMPLES = $(patsubst examples/%.cpp,%,$(wildcard examples/*.cpp))

object = $(patsubst %.cpp,$(BUILD)/obj/%.o,$(1))
KERNEL_OBJECTS = $(foreach isa,$(ISAS),$(KERNELS:%=$(BUILD)/obj/src/cpu/%.$(isa).o))
EMULATED_OBJECTS = $(patsubst %.cu,$(BUILD)/obj/%.emulated.o,$(filter-out $(GPU_ONLY),$(CUDA_SOURCES)))
GPU_OBJECTS = $(if $(filter 1,$(CUDA)),$(CUDA_SOURCES:%.cu=$(BUILD)/obj/%.device.o))
LIB_OBJECTS = $(call object,$(LIB_SOURCES)) $(KERNEL_OBJECTS) $(EMULATED_OBJECTS) $(GPU_OBJECTS)
CLI_OBJECTS = $(call object,$(CLI_SOURCES))
TEST_OBJECTS = $(call object,$(TEST_SOURCES)) $(CUDA_TEST_SOURCES:%.cu=$(BUILD)/obj/%.emulated.o)
EXAMPLE_PROGRAMS = $(EXAMPLES:%=$(BUILD)/examples/%)

# Operations register their gradcheck cases when the program starts, so all of the library is linked.
WHOLE_LIB = -Wl,--whole-archive $(BUILD)/libmocograd.a -Wl,--no-whole-archive

# ---- targets ---------------------------------------------------------------------------------------

all: $(BUILD)/moco $(BUILD)/libmocograd.a  ## build/moco and build/libmocograd.a, optimised (the default)

$(BUILD)/libmocograd.a: $(LIB_OBJECTS) $(BUILD)/cuda-$(CUDA)
	@rm -f $@
	ar rcs $@ $(LIB_OBJECTS)

# Whether the library was last made with the GPU.
$(BUILD)/cuda-$(CUDA):
	@mkdir -p $(@D)
	@rm -f $(BUILD)/cuda-[01]
	@touch $@

# For which GPUs code was last made.
empty =
GPU_CODE = $(BUILD)/gpu-code-$(subst $(empty) $(empty),-,$(strip $(CUDA_ARCHS) ptx $(CUDA_PTX)))
$(GPU_CODE):
	@mkdir -p $(@D)
	@rm -f $(BUILD)/gpu-code-*
	@touch $@
$(GPU_OBJECTS): $(GPU_CODE)

$(BUILD)/moco: $(CLI_OBJECTS) $(BUILD)/libmocograd.a
	$(CXX) $(COMMON) $(LDFLAGS) -o $@ $(CLI_OBJECTS) $(WHOLE_LIB) $(CLI_LDLIBS) $(LDLIBS)

STAND_INS = $(addprefix $(BUILD)/,fault_injection.so fake_cublas.so old_driver/libcuda.so.1)
$(BUILD)/tests: $(TEST_OBJECTS) $(BUILD)/libmocograd.a | $(STAND_INS)
	$(CXX) $(COMMON) $(LDFLAGS) -o $@ $(TEST_OBJECTS) $(WHOLE_LIB) -lgtest $(LDLIBS)

# They stand before the C library, or for one of NVIDIA's. Not instrumented, as a program may not be that
# loads them.
$(BUILD)/fault_injection.so: tests/fault_injection.c
$(BUILD)/fake_cublas.so: tests/fake_cublas.c
$(BUILD)/old_driver/libcuda.so.1: tests/old_driver.c
$(STAND_INS):
	@mkdir -p $(@D)
	$(CC) -std=c11 -O1 -g -Wall -Wextra -fPIC -shared -o $@ $< -ldl

$(BUILD)/examples/%: $(BUILD)/obj/examples/%.o $(BUILD)/libmocograd.a
	@mkdir -p $(@D)
	$(CXX) $(COMMON) $(LDFLAGS) -o $@ $< $(WHOLE_LIB) $(LDLIBS)

$(BUILD)/obj/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(COMMON) -c -o $@ $<

# The same sources as nvcc's, for the CPU. #pragma unroll is unknown to g++, and the assembler warns of
# the section type that g++ gives to __shared__ variables of templates.
$(BUILD)/obj/%.emulated.o: %.cu
	@mkdir -p $(@D)
	$(CXX) $(COMMON) -Wno-unknown-pragmas -Wa,--no-warn -DMOCO_CUDA=cuda_emulated -c -o $@ -x c++ $<

# Some tests call functions of the kernels' headers.
$(BUILD)/obj/tests/%.o: override CXXFLAGS += -Wno-unknown-pragmas

# A page for the browser becomes a string of the program.
$(BUILD)/embedded/%.inc: src/%
	@mkdir -p $(@D)
	{ printf 'R"page('; cat $<; printf ')page"'; } >$@

$(BUILD)/obj/src/debug/graph_html.o: $(BUILD)/embedded/debug/html/graph.html.inc
$(BUILD)/obj/src/debug/report.o: $(BUILD)/embedded/debug/html/report.html.inc
$(BUILD)/obj/src/debug/html_page.o: $(BUILD)/embedded/debug/html/elements.js.inc

# On damaged data stb_image lets sums of coefficients overflow, which -fwrapv defines, and shifts a
# zero by 32 bits and more, which is zero on every machine: that one check is off for this one file.
$(BUILD)/obj/src/data/image_file.o: override CXXFLAGS += -fwrapv -fno-sanitize=shift

# All machines draw the same pixels, whether or not they have a fused multiply-add.
$(BUILD)/obj/src/data/shapes.o: override CXXFLAGS += -ffp-contract=off

# What moco gradcheck --explain prints of an operation is what its header says.
$(BUILD)/gen/cli/operation_headers.inc: $(wildcard src/autograd/ops/*.h)
	@mkdir -p $(@D)
	for header in $^; do printf '{"%s", R"HEADER(' $$header; cat $$header; printf ')HEADER"},\n'; done >$@
$(BUILD)/obj/src/cli/operation_formula.o: $(BUILD)/gen/cli/operation_headers.inc
$(BUILD)/obj/src/cli/operation_formula.o: override CXXFLAGS += -I$(BUILD)/gen

define kernel_rule
$(BUILD)/obj/src/cpu/%.$(1).o: src/cpu/%.cpp
	@mkdir -p $$(@D)
	$$(CXX) $$(COMMON) $$(ISA_FLAGS_$(1)) -DMOCO_ISA=$(1) -c -o $$@ $$<
endef
$(foreach isa,$(ISAS),$(eval $(call kernel_rule,$(isa))))

$(BUILD)/obj/%.device.o: %.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) -DMOCO_CUDA=cuda_device -MF $(@:.o=.d) -c -o $@ $<

test: all $(BUILD)/tests $(EXAMPLE_PROGRAMS)  ## run every test; ends with 'N passed, M failed'
	BUILD=$(BUILD) tests/run.sh

gradcheck: $(BUILD)/moco  ## check every operation's gradient against central differences
	$(BUILD)/moco gradcheck

mutants: all $(BUILD)/tests  ## plant bugs one by one; a test must notice each (SAMPLE=N: N of them)
	BUILD=$(BUILD) tools/mutants.sh $(if $(SAMPLE),--sample $(SAMPLE))

mutants-barriers: all $(BUILD)/tests  ## leave out each barrier, wait and fence of the CUDA kernels; a test must notice
	BUILD=$(BUILD) tools/mutants.sh --barriers

debug:  ## build-debug/moco, its tests and examples: -O0 -g3 with frame pointers, for gdb
	$(MAKE) MODE=debug BUILD=build-debug all build-debug/tests $(EXAMPLES:%=build-debug/examples/%)

asan:  ## every test under AddressSanitizer and UndefinedBehaviorSanitizer, in build-asan
	$(MAKE) MODE=asan BUILD=build-asan test

tsan:  ## every test under ThreadSanitizer, in build-tsan
	$(MAKE) MODE=tsan BUILD=build-tsan test

test-old-cpu: all $(BUILD)/tests  ## kernels and a short run on emulated processors without AVX (needs qemu-user)
	tools/old_cpu_test.sh $(BUILD)

bench: $(BUILD)/moco  ## kernels and training steps: throughput and per cent of this machine's limits
	$(BUILD)/moco bench

bench-peers: $(BUILD)/moco  ## PyTorch, oneDNN, OpenBLAS and BLIS beside it; writes the tables in docs (needs PyTorch)
	python3 tools/bench_peers.py --moco $(BUILD)/moco --write docs

demo: $(BUILD)/moco  ## pretrain on the built-in shapes for a few minutes and evaluate
	tools/demo.sh $(BUILD)/moco

format:  ## rewrite the sources with clang-format
	@clang-format -i $(FORMATTED)

lint:  ## check formatting, shell scripts, the floors' include order and the object files' symbols
	@clang-format --dry-run -Werror $(FORMATTED)
	shellcheck -x -e SC2016 install-deps.sh .ci/run tests/run.sh tests/*_test.sh tools/*.sh tools/gpu/*.sh
	BUILD=$(BUILD) tests/architecture_test.sh

size:  ## lines of code by floor, the longest files and functions
	tools/size.sh

clean:  ## remove everything that was built
	rm -rf build build-debug build-asan build-tsan

link-flags:  ## the flags of a program of yours, after build/libmocograd.a: headers and libraries
	@echo -I$(CURDIR)/src $(LDFLAGS:-Wl$(comma)-T$(comma)%=-Wl$(comma)-T$(comma)$(CURDIR)/%) $(LDLIBS)

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: all test test-old-cpu gradcheck mutants mutants-barriers debug asan tsan bench bench-peers demo format lint size clean link-flags help
.SECONDARY: $(EXAMPLES:%=$(BUILD)/obj/examples/%.o)
.DEFAULT_GOAL := all

-include $(LIB_OBJECTS:.o=.d) $(CLI_OBJECTS:.o=.d) $(TEST_OBJECTS:.o=.d) $(EXAMPLES:%=$(BUILD)/obj/examples/%.d)
