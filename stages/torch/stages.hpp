#pragma once

#include "pipeline/stage.hpp"

namespace gp {

// The stages of the module "torch", one function each, beside their implementation.

StageInfo quality_stage_info();  ///< evaluate.quality; quality.cpp
StageInfo train_dcgan_info();    ///< train.dcgan; train_dcgan.cpp
StageInfo train_gan_info();      ///< train.gan; train_gan.cpp

}  // namespace gp
