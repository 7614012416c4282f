#pragma once

#include "pipeline/stage.hpp"

namespace gp {

// The stages of the module "data", one function each, beside their implementation.

StageInfo image_crop_info();

}  // namespace gp
