// What is around cuBLAS's products; gemm_test.cpp has the products.
#include "cuda/cublas.h"

#include "cuda/device_problem.h"
#include "cuda/peak.h"
#include "kernel_cases.h"

namespace mocograd {
namespace {

std::string error_of(const char* wanted) {
  try {
    find_cublas(wanted);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Cublas, TheEnvironmentSaysWhich) {
  EXPECT_EQ(find_cublas("0"), nullptr);
  const std::string fake =
      std::filesystem::read_symlink("/proc/self/exe").parent_path() / "fake_cublas.so";
  EXPECT_EQ(find_cublas(fake.c_str())->name(), "cuBLAS 13.1.2");
}

TEST(Cublas, ALibraryThatWasAskedForMustBeOne) {
  EXPECT_NE(error_of("nowhere/libcublas.so").find("nowhere/libcublas.so"), std::string::npos);
  EXPECT_EQ(error_of("libm.so.6"), "cublas: libm.so.6 has no cublasCreate_v2");
}

// The real library, where the toolkit is installed without a GPU, loads and then refuses.
TEST(Cublas, WithoutAGpuThereIsNone) {
  if (device_problem(Device::cuda).empty()) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_EQ(find_cublas(nullptr), nullptr);
}

TEST(Cublas, TheEmulatorTakesItsOwnKernel) {
  EXPECT_EQ(cublas_of(Device::cuda_emulated), nullptr);
}

TEST(Cublas, RunsOnAStreamWithMemoryOfItsOwn) {
  alignas(256) char workspace[1024];
  fake_cublas().run_on(nullptr, workspace, sizeof workspace);
  EXPECT_THROW(fake_cublas().run_on(nullptr, workspace + 1, 512), Error);
}

// Of bf16, which the limits are measured with: 1 2 | 3 4 squared.
TEST(Cublas, ProductsOfBf16AreSummedInF32) {
  const uint16_t a[4] = {0x3f80, 0x4000, 0x4040, 0x4080};
  float c[4];
  fake_cublas().square_product(Cublas::Arithmetic::bf16, 2, a, a, c);
  EXPECT_EQ(Values(c, c + 4), (Values{7, 10, 15, 22}));
}

TEST(Peak, AllLimitsAreMeasured) {
  const LimitWork little{.tries = 1, .blocks = 2, .rounds = 3, .numel = 4096, .product = 8};
  for (const Cublas* library : {static_cast<const Cublas*>(nullptr), &fake_cublas()}) {
    set_cublas(Device::cuda_emulated, library);
    const GpuLimits limits = cuda_emulated::measure_limits(little);
    set_cublas(Device::cuda_emulated, nullptr);
    for (double rate : {limits.flops, limits.tf32_flops, limits.bf16_flops, limits.bytes})
      EXPECT_TRUE(rate > 0 && std::isfinite(rate)) << rate;
  }
}

// ---- why a GPU cannot be used ------------------------------------------------------------------------

GpuFacts h100() {
  GpuFacts facts;
  facts.driver = 12040;
  facts.runtime = 13000;
  facts.devices = 1;
  facts.name = "NVIDIA H100";
  facts.architecture = 900;
  facts.lowest_architecture = 750;
  return facts;
}

TEST(DeviceProblem, NoneWhereAllIsWell) {
  EXPECT_EQ(problem_of(h100()), "");
  EXPECT_FALSE(is_unusable(h100()));
}

TEST(DeviceProblem, NoDriver) {
  GpuFacts facts;
  facts.runtime = 13000;
  EXPECT_EQ(problem_of(facts), "this machine has no NVIDIA driver");
  EXPECT_FALSE(is_unusable(facts));
}

TEST(DeviceProblem, DriverTooOld) {
  GpuFacts facts = h100();
  facts.driver_too_old = true;
  facts.other_error = "CUDA driver version is insufficient for CUDA runtime version";
  facts.devices = 0;
  EXPECT_EQ(problem_of(facts), "the NVIDIA driver is made for CUDA 12.4, this build needs 13.0");
  EXPECT_TRUE(is_unusable(facts));
}

TEST(DeviceProblem, NoGpu) {
  GpuFacts facts = h100();
  facts.devices = 0;
  EXPECT_EQ(problem_of(facts), "this machine has no NVIDIA GPU");
  EXPECT_FALSE(is_unusable(facts));
}

TEST(DeviceProblem, ADriverThatFails) {
  GpuFacts facts = h100();
  facts.devices = 0;
  facts.other_error = "system not yet initialized";
  EXPECT_EQ(problem_of(facts), "the NVIDIA driver answers: system not yet initialized");
  EXPECT_TRUE(is_unusable(facts));
}

TEST(DeviceProblem, ChipTooOld) {
  GpuFacts facts = h100();
  facts.name = "Tesla P40";
  facts.architecture = 610;
  EXPECT_EQ(problem_of(facts),
            "the Tesla P40 has compute capability 6.1, this build has code for 7.5 and newer");
  EXPECT_TRUE(is_unusable(facts));
}

TEST(DeviceProblem, ChipWithoutCode) {
  GpuFacts facts = h100();
  facts.name = "NVIDIA B200";
  facts.architecture = 1000;
  facts.has_code = false;
  EXPECT_EQ(problem_of(facts),
            "the NVIDIA B200 has compute capability 10.0, for which this build has no code: make "
            "CUDA_ARCHS=100");
  EXPECT_TRUE(is_unusable(facts));
}

TEST(DeviceProblem, Tf32NeedsTensorCores) {
  EXPECT_EQ(tensor_core_problem_of(Precision::tf32, 800), "");
  EXPECT_EQ(tensor_core_problem_of(Precision::tf32, 750),
            "--precision tf32: it takes compute capability 8.0, this GPU has 7.5");
}

TEST(DeviceProblem, KernelsAreCalledByWhatResultsDependOn) {
  EXPECT_EQ(kernels_of_gpu(900, true, Precision::fp32), "cuda 9.0");
  EXPECT_EQ(kernels_of_gpu(900, true, Precision::tf32), "cuda 9.0, mma");
  EXPECT_EQ(kernels_of_gpu(900, true, Precision::bf16), "cuda 9.0, wgmma");
  EXPECT_EQ(kernels_of_gpu(860, false, Precision::bf16), "cuda 8.6, mma");
}

TEST(DeviceProblem, NoMemory) {
  EXPECT_EQ(no_memory_text(size_t{2} << 30, size_t{1000} << 20, size_t{81000} << 20),
            "cuda: cannot allocate 2048 MiB: 1000 of the GPU's 81000 MiB are free");
  EXPECT_EQ(no_memory_text(4096, 0, size_t{16} << 20),
            "cuda: cannot allocate 4096 bytes: 0 of the GPU's 16 MiB are free");
}

}  // namespace
}  // namespace mocograd
