// The stage module "torch": train.* and evaluate.*.

#include "pipeline/module.hpp"
#include "stages/torch/stages.hpp"

GP_STAGE_MODULE(registry) { static_cast<void>(registry); }
