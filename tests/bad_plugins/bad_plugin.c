/* A plugin with one fault, chosen when it is compiled; see CMakeLists.txt. */
#include "pipeline/plugin_abi.h"

#include <signal.h>
#include <unistd.h>

#if defined(BAD_CRASH_ON_LOAD) || defined(BAD_HANG_ON_LOAD) || defined(BAD_EXIT_ON_LOAD)
__attribute__((constructor)) static void on_load(void) {
#if defined(BAD_CRASH_ON_LOAD)
  raise(SIGSEGV);
#elif defined(BAD_HANG_ON_LOAD)
  for (;;) pause();
#else
  _exit(7);
#endif
}
#endif

#ifndef BAD_MAJOR
#define BAD_MAJOR GP_ABI_MAJOR
#endif
#ifndef BAD_MINOR
#define BAD_MINOR GP_ABI_MINOR
#endif
#ifndef BAD_ENTRY_SIZE
#define BAD_ENTRY_SIZE sizeof(gp_plugin)
#endif
#ifndef BAD_STAGE_SIZE
#define BAD_STAGE_SIZE sizeof(gp_stage)
#endif
#ifndef BAD_STAGE_NAME
#define BAD_STAGE_NAME "bad.stage"
#endif
#ifndef BAD_DEFAULT
#define BAD_DEFAULT 0.5
#endif
#ifndef BAD_STATUS
#define BAD_STATUS GP_OK
#endif

#ifdef BAD_UNRESOLVED
extern void a_function_that_nobody_has(void);
#endif

static const gp_param p_param = {.struct_size = sizeof(gp_param),
                                 .type = GP_TYPE_REAL,
                                 .flags = GP_PARAM_MIN | GP_PARAM_MAX,
                                 .name = "p",
                                 .doc = "probability",
                                 .min = 0,
                                 .max = 1,
                                 .default_real = BAD_DEFAULT};
static const gp_param* const params[] = {&p_param};

static gp_status create(const gp_host* host, const gp_value* const* values, size_t n_values,
                        void** self) {
  (void)host;
  (void)values;
  (void)n_values;
  (void)self;
#ifdef BAD_CREATE
  host->fail(host, "no table for this machine");
  return GP_ERROR;
#else
  return GP_OK;
#endif
}

static gp_status process(const void* self, const gp_host* host, const gp_image_in* in,
                         const gp_image_out* out) {
  (void)self;
  (void)host;
  (void)in;
  for (int32_t y = 0; y < out->height; ++y) {
    for (int32_t i = 0; i < out->width * out->channels; ++i) out->data[y * out->stride + i] = 7;
  }
#ifdef BAD_UNRESOLVED
  a_function_that_nobody_has();
#endif
#ifdef BAD_CRASH
  raise(SIGSEGV);
#endif
#ifdef BAD_WRITE
  out->data[out->height * out->stride] = 1;
#endif
  return BAD_STATUS;
}

#ifdef BAD_SIZE
static gp_status output_shape(const void* self, const gp_host* host, int32_t in_height,
                              int32_t in_width, int32_t* out_height, int32_t* out_width) {
  (void)self;
  (void)host;
  (void)in_width;
  *out_height = in_height;
  *out_width = BAD_SIZE;
  return GP_OK;
}
#endif

static const gp_stage stage = {.struct_size = BAD_STAGE_SIZE,
                               .name = BAD_STAGE_NAME,
                               .doc = "Has a fault.",
                               .in_kind = GP_KIND_IMAGE,
                               .out_kind = GP_KIND_IMAGE,
                               .params = params,
                               .n_params = 1,
                               .create = create,
#ifdef BAD_SIZE
                               .output_shape = output_shape,
#endif
                               .process = process};
#ifdef BAD_TWICE
static const gp_stage* const stages[] = {&stage, &stage};
#else
static const gp_stage* const stages[] = {&stage};
#endif

#ifndef BAD_NO_ENTRY
const gp_plugin gp_plugin_entry = {BAD_MAJOR,
                                   BAD_MINOR,
                                   BAD_ENTRY_SIZE,
                                   "bad_plugin",
                                   "1.0.0",
                                   stages,
                                   sizeof stages / sizeof stages[0]};
#else
GP_EXPORT const gp_stage* const* something_else = stages;
#endif
