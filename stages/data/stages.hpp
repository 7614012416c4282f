#pragma once

#include "pipeline/stage.hpp"

namespace gp {

// The stages of the module "data", one function each, beside their implementation.

StageInfo source_fgvc_info();
StageInfo source_folder_info();
StageInfo source_archive_info();
StageInfo image_decode_info();
StageInfo image_crop_info();
StageInfo image_resize_info();

}  // namespace gp
