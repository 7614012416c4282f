// The stage module "data": source.*, image.* and sink.*.

#include "pipeline/module.hpp"

#include <opencv2/core/utility.hpp>

#include "stages/data/hdf5/shard_stages.hpp"
#include "stages/data/stages.hpp"

GP_STAGE_MODULE(registry) {
  // The engine's threads are the only ones: OpenCV must not start a pool of its own in each.
  cv::setNumThreads(0);
  registry.add(gp::image_crop_info());
  registry.add(gp::source_shards_info());
  registry.add(gp::sink_shards_info());
}
