#pragma once

#include "pipeline/stage.hpp"

namespace gp {

// The stages of the module "torch", one function each, beside their implementation.

}  // namespace gp
