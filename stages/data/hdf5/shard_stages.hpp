#pragma once

#include "pipeline/stage.hpp"

namespace gp {

/// `source.shards`: images from a folder of shards (see ShardSetWriter), nothing -> image.
StageInfo source_shards_info();

/// `sink.shards`: writes every image into a folder of shards, image -> nothing.
StageInfo sink_shards_info();

}  // namespace gp
