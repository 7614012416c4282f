#pragma once

#include "pipeline/build_id.hpp"
#include "pipeline/stage_registry.hpp"

// A C++ stage module is a shared library that exports these two functions (extern "C"). C++ has no
// stable ABI, so the host refuses a module whose build id differs from its own.
//
//   GP_STAGE_MODULE(registry) {
//     registry.add({...});
//   }

#define GP_STAGE_MODULE(registry)                                                      \
  extern "C" __attribute__((visibility("default"))) const char* gp_module_build_id() { \
    return GP_BUILD_ID;                                                                \
  }                                                                                    \
  extern "C" __attribute__((visibility("default"))) void gp_module_register(           \
      ::gp::StageRegistry& registry)
