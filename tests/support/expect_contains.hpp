#pragma once

#include <gtest/gtest.h>

#include <string>

/// Expects `part` somewhere in `text`, and shows both when it is not there.
#define EXPECT_CONTAINS(text, part)                          \
  EXPECT_NE(std::string(text).find(part), std::string::npos) \
      << "looked for: " << (part) << "\nin: " << (text)
