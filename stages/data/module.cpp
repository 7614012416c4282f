// The stage module "data": source.*, image.* and sink.*.

#include "pipeline/module.hpp"

#include "stages/data/decode.hpp"
#include "stages/data/hdf5/shard_stages.hpp"
#include "stages/data/stages.hpp"
#include "stages/data/synthetic.hpp"

GP_STAGE_MODULE(registry) {
  // The engine's threads are the only ones: OpenCV must not start a pool of its own in each.
  gp::configure_opencv();
  registry.add(gp::source_fgvc_info());
  registry.add(gp::source_folder_info());
  registry.add(gp::source_archive_info());
  registry.add(gp::image_decode_info());
  registry.add(gp::image_crop_info());
  registry.add(gp::image_resize_info());
  registry.add(gp::synthetic_source_info());
  registry.add(gp::source_shards_info());
  registry.add(gp::sink_shards_info());
}
