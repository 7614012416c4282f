// The stage module "torch": train.* and evaluate.*.

#include "pipeline/module.hpp"
#include "stages/torch/stages.hpp"

GP_STAGE_MODULE(registry) {
  registry.add(gp::quality_stage_info());
  registry.add(gp::train_dcgan_info());
  registry.add(gp::train_gan_info());
}
