// Stands in for libcuda.so.1, NVIDIA's driver, where it is made for CUDA 11.0: older than any that this
// engine is built with. The CUDA runtime asks it for each of its functions by name and then for its version,
// and calls no other.
#include <string.h>

typedef void (*Function)(void);

int cuDriverGetVersion(int* version) {
  *version = 11000;
  return 0;
}

static int insufficient(void) {
  return 35;  // CUDA_ERROR_INSUFFICIENT_DRIVER
}

int cuGetProcAddress_v2(const char* name, Function* function, int version, unsigned long long flags,
                        int* found) {
  (void)version, (void)flags;
  *function = (Function)insufficient;
  if (strcmp(name, "cuDriverGetVersion") == 0) *function = (Function)cuDriverGetVersion;
  if (strcmp(name, "cuGetProcAddress") == 0) *function = (Function)cuGetProcAddress_v2;
  if (found) *found = 0;
  return 0;
}
