/* A plugin in plain C, without the SDK: everything that the ABI asks for, in the open. */
#include <math.h>
#include <stdlib.h>

#include "pipeline/plugin_abi.h"

typedef struct noise {
  double p;
  double sigma;
} noise;

static const gp_param p_param = {.struct_size = sizeof(gp_param),
                                 .type = GP_TYPE_REAL,
                                 .flags = GP_PARAM_MIN | GP_PARAM_MAX,
                                 .name = "p",
                                 .doc = "probability",
                                 .min = 0,
                                 .max = 1,
                                 .default_real = 1};
static const gp_param sigma_param = {.struct_size = sizeof(gp_param),
                                     .type = GP_TYPE_REAL,
                                     .flags = GP_PARAM_MIN | GP_PARAM_MAX,
                                     .name = "sigma",
                                     .doc = "standard deviation, of 255 gray levels",
                                     .min = 0,
                                     .max = 255,
                                     .default_real = 5};
static const gp_param* const params[] = {&p_param, &sigma_param};

static gp_status create(const gp_host* host, const gp_value* const* values, size_t n_values,
                        void** self) {
  noise* made = malloc(sizeof *made);
  (void)n_values; /* as many as there are params */
  if (made == NULL) {
    host->fail(host, "out of memory");
    return GP_ERROR;
  }
  made->p = values[0]->real;
  made->sigma = values[1]->real;
  *self = made;
  return GP_OK;
}

static gp_status process(const void* self, const gp_host* host, const gp_image_in* in,
                         const gp_image_out* out) {
  const noise* this = self;
  const double sigma = host->uniform(host) < this->p ? this->sigma : 0;
  for (int32_t y = 0; y < in->height; ++y) {
    const uint8_t* from = in->data + y * in->stride;
    uint8_t* to = out->data + y * out->stride;
    for (int32_t i = 0; i < in->width * in->channels; ++i) {
      const double value = sigma > 0 ? from[i] + sigma * host->normal(host) : from[i];
      to[i] = (uint8_t)fmin(fmax(floor(value + 0.5), 0), 255);
    }
  }
  return GP_OK;
}

static const gp_stage stage = {.struct_size = sizeof(gp_stage),
                               .name = "augment.noise",
                               .doc = "Adds Gaussian noise with probability p.",
                               .in_kind = GP_KIND_IMAGE,
                               .out_kind = GP_KIND_IMAGE,
                               .flags = GP_STAGE_RANDOM,
                               .params = params,
                               .n_params = sizeof params / sizeof params[0],
                               .create = create,
                               .destroy = free,
                               .process = process};
static const gp_stage* const stages[] = {&stage};

const gp_plugin gp_plugin_entry = {
    GP_ABI_MAJOR, GP_ABI_MINOR, sizeof(gp_plugin), "augment_noise", "1.0.0", stages, 1};
