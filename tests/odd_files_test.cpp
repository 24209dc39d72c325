// Names that are there, but are no files that can be read or cut: pipes, devices, links to nowhere.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "data/fingerprint.h"
#include "data_folder.h"
#include "io/line_file.h"

namespace mocograd {
namespace {

namespace fs = std::filesystem;

constexpr size_t kCifarRecord = 3073, kStlImage = 3 * 96 * 96;

class OddFiles : public DataFolder {
 protected:
  void pipe(const std::string& name) const { ASSERT_EQ(mkfifo(path(name).c_str(), 0600), 0); }
};

TEST_F(OddFiles, APipeIsRefusedAndNotWaitedFor) {
  pipe("data_batch_1.bin");
  EXPECT_EQ(error_of("cifar10"), path("data_batch_1.bin") + ": is not a regular file");
  fs::remove(path("data_batch_1.bin"));
  put("data_batch_1.bin", std::string(kCifarRecord, '\0'));
  pipe("batches.meta.txt");
  EXPECT_EQ(error_of("cifar10"), path("batches.meta.txt") + ": is not a regular file");
  pipe("train-images-idx3-ubyte.gz");
  put("train-labels-idx1-ubyte", "");
  EXPECT_EQ(error_of("idx"), path("train-images-idx3-ubyte.gz") + ": is not a regular file");
}

TEST_F(OddFiles, WhatCannotBeOpenedSaysWhy) {
  EXPECT_EQ(error_of("cifar100"),
            path("train.bin") + ": cannot be opened: No such file or directory");
  fs::create_symlink("train.bin", path("train.bin"));
  EXPECT_EQ(error_of("cifar100"),
            path("train.bin") + ": cannot be opened: Too many levels of symbolic links");
}

TEST_F(OddFiles, ALinkToNowhereIsNoMissingFile) {
  const std::string record(kCifarRecord, '\0');
  put("data_batch_1.bin", record);
  put("train.bin", record + "x");
  put("train_X.bin", std::string(kStlImage, '\0'));
  put("train_y.bin", "\1");
  const struct {
    const char *kind, *file;
  } optional[] = {{"cifar10", "test_batch.bin"},
                  {"cifar10", "data_batch_3.bin"},
                  {"cifar10", "batches.meta.txt"},
                  {"cifar100", "test.bin"},
                  {"cifar100", "fine_label_names.txt"},
                  {"stl10", "unlabeled_X.bin"},
                  {"stl10", "test_X.bin"},
                  {"idx", "train-images-idx3-ubyte"}};
  for (const auto& [kind, file] : optional) {
    fs::create_symlink("nowhere", path(file));
    if (kind == std::string("idx")) fs::create_symlink("nowhere", path("train-labels-idx1-ubyte"));
    EXPECT_EQ(error_of(kind), path(file) + ": cannot be opened: No such file or directory");
    fs::remove(path(file));
  }
}

TEST_F(OddFiles, OnlyLinesOfARegularFileAreReadAndCut) {
  pipe("pipe");
  fs::create_symlink("/dev/zero", path("zero"));
  for (const char* name : {"pipe", "zero", "missing"})
    EXPECT_EQ(keep_lines(path(name), 3), 0) << name;
  EXPECT_TRUE(fs::is_fifo(path("pipe")));
  EXPECT_TRUE(fs::is_symlink(path("zero")));
  put("lines", "a\nb\nc");
  EXPECT_EQ(keep_lines(path("lines"), 1), 1);
  EXPECT_EQ(fs::file_size(path("lines")), 2u);
}

// Of everything that pretraining sees.
TEST_F(OddFiles, TheFingerprintIsOfTheUnlabelledImagesToo) {
  put("train_X.bin", std::string(kStlImage, '\0'));
  put("train_y.bin", "\1");
  const std::string labelled = fingerprint(open("stl10"));
  put("unlabeled_X.bin", std::string(kStlImage, '\1'));
  const std::string with_ones = fingerprint(open("stl10"));
  put("unlabeled_X.bin", std::string(kStlImage, '\2'));
  EXPECT_NE(with_ones, labelled);
  EXPECT_NE(fingerprint(open("stl10")), with_ones);
}

}  // namespace
}  // namespace mocograd
