/* A plugin in plain C: keeps a table for each instance, refuses some images, drops others. */
#include <stdlib.h>

#include "pipeline/plugin_abi.h"

typedef struct threshold {
  uint8_t table[256]; /* filled by create, read-only afterwards */
} threshold;

static const gp_param level_param = {.struct_size = sizeof(gp_param),
                                     .type = GP_TYPE_INT,
                                     .flags = GP_PARAM_MIN | GP_PARAM_MAX,
                                     .name = "level",
                                     .doc = "values from here on become 255, others 0",
                                     .min = 0,
                                     .max = 256,
                                     .default_int = 128};
static const gp_param* const params[] = {&level_param};

static gp_status create(const gp_host* host, const gp_value* const* values, size_t n_values,
                        void** self) {
  threshold* made = malloc(sizeof *made);
  (void)n_values; /* as many as there are params */
  if (made == NULL) {
    host->fail(host, "out of memory");
    return GP_ERROR;
  }
  for (int i = 0; i < 256; ++i) made->table[i] = i >= values[0]->integer ? 255 : 0;
  *self = made;
  return GP_OK;
}

static gp_status process(const void* self, const gp_host* host, const gp_image_in* in,
                         const gp_image_out* out) {
  const threshold* this = self;
  if (in->data[0] == 13) {
    host->fail(host, "begins with 13, which brings bad luck");
    return GP_ERROR; /* this sample is bad: a line in rejects.jsonl */
  }
  if (in->data[0] == 14) {
    host->fail(host, "not wanted");
    return GP_DROP; /* left out on purpose: no error */
  }
  for (int32_t y = 0; y < in->height; ++y) {
    const uint8_t* from = in->data + y * in->stride;
    uint8_t* to = out->data + y * out->stride;
    for (int32_t i = 0; i < in->width * in->channels; ++i) to[i] = this->table[from[i]];
  }
  return GP_OK;
}

static const gp_stage stage = {.struct_size = sizeof(gp_stage),
                               .name = "augment.threshold",
                               .doc = "Makes every value black or white.",
                               .in_kind = GP_KIND_IMAGE,
                               .out_kind = GP_KIND_IMAGE,
                               .params = params,
                               .n_params = 1,
                               .create = create,
                               .destroy = free,
                               .process = process};
static const gp_stage* const stages[] = {&stage};

const gp_plugin gp_plugin_entry = {
    GP_ABI_MAJOR, GP_ABI_MINOR, sizeof(gp_plugin), "augment_threshold", "1.0.0", stages, 1};
