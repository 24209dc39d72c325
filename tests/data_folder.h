// A folder for tests to fill with files of a data set and to open as one.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "data/dataset.h"
#include "temporary_directory.h"

namespace mocograd {

class DataFolder : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return directory_.file(name); }
  void put(const std::string& name, const std::string& bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
  }
  DataSet open(const std::string& kind) const {
    return open_data_set(kind + ":" + directory_.path(), 32);
  }
  std::string error_of(const std::string& kind) const {
    try {
      open(kind);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  const TemporaryDirectory directory_;
};

}  // namespace mocograd
