// The test program. Tests that need the larger data read their place from MOCO_TEST_DATA and are
// skipped, with a printed line, where it is not set.
#include <gtest/gtest.h>

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
