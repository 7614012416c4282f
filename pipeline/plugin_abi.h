/* The C ABI between gan-pipeline and its plugins. Compiles alone as C11, C++11 and later.
 *
 * A plugin is a shared library that exports one object, `gp_plugin_entry`: a table of stages. Each
 * stage is a pure function of one image: the same picture, parameters and random numbers give the
 * same result, on any thread and in any order. C++ authors include plugin_sdk.hpp instead, which
 * is built on this header.
 *
 * Who does what
 *  - The host allocates every pixel, checks every parameter against the plugin's table before the
 *    plugin sees it, and gives all randomness. A plugin keeps no state between samples.
 *  - Pointers that a call receives are valid until it returns. Pointers that a plugin publishes
 *    through gp_plugin_entry stay valid for ever: plugins are never unloaded.
 *  - No exception and no longjmp may leave a function of the plugin.
 *
 * Growth
 *  - A host loads a plugin when the majors are equal and the host's minor is not smaller.
 *  - Every struct holds its own size as its maker knew it. Structs grow at the end only, and a
 *    member is read only where struct_size covers it. Lists are lists of pointers, so that their
 *    elements can grow too. Anything else is a new major.
 *
 * Thread classes, written on every function
 *  [setup thread]            one call at a time for each instance, before its first or after its
 *                            last sample; other instances may be at work meanwhile.
 *  [any thread, concurrent]  on several threads at once, for the same instance.
 */
#ifndef GP_PLUGIN_ABI_H
#define GP_PLUGIN_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GP_ABI_MAJOR 1u
#define GP_ABI_MINOR 0u

#define GP_EXPORT __attribute__((visibility("default")))

/* What a function of a plugin returns. Any other value is a fault that stops the run. */
typedef int32_t gp_status;
enum {
  GP_OK = 0,
  GP_DROP = 1, /* process only: the sample leaves the pipeline on purpose; not an error */
  GP_ERROR = 2 /* create: the stage can't be made; otherwise: this one sample is bad */
};

/* What flows between stages. Later minors may add kinds. */
enum {
  GP_KIND_IMAGE = 1 /* 8-bit RGB pixels */
};

/* gp_stage.flags */
#define GP_STAGE_RANDOM                                                                        \
  (1u << 0)                       /* draws random numbers: left out when images are evaluated. \
                                     Drawing without this flag stops the run. */
#define GP_STAGE_SERIAL (1u << 1) /* process and matrix: one call at a time for each instance */

/* gp_param.type, and the member of gp_value that holds the value */
enum {
  GP_TYPE_BOOL = 1,     /* integer: 0 or 1 */
  GP_TYPE_INT = 2,      /* integer */
  GP_TYPE_REAL = 3,     /* real; finite */
  GP_TYPE_STRING = 4,   /* text: UTF-8, never NULL */
  GP_TYPE_CHOICE = 5,   /* text: one of the choices; integer: its index */
  GP_TYPE_REAL_LIST = 6 /* list, list_size; finite elements */
};

/* gp_param.flags */
#define GP_PARAM_REQUIRED (1u << 0) /* has no default: the YAML must give it */
#define GP_PARAM_MIN (1u << 1)      /* `min` counts */
#define GP_PARAM_MAX (1u << 2)      /* `max` counts */

/* One parameter of a stage, as data: the host validates the YAML by it and shows it to users. */
typedef struct gp_param {
  uint32_t struct_size;
  int32_t type;               /* GP_TYPE_* */
  uint32_t flags;             /* GP_PARAM_* */
  const char* name;           /* the key in YAML: [a-z][a-z0-9_]* */
  const char* doc;            /* one line, with the unit */
  double min;                 /* int, real, real_list (of every element); inclusive */
  double max;                 /* int, real, real_list (of every element); inclusive */
  int64_t default_int;        /* bool, int */
  double default_real;        /* real */
  const char* default_text;   /* string, choice */
  const double* default_list; /* real_list; may be NULL when it is empty */
  size_t n_default_list;
  const char* const* choices; /* choice */
  size_t n_choices;
} gp_param;

/* A checked parameter value; see GP_TYPE_* for the member that holds it. */
typedef struct gp_value {
  uint32_t struct_size;
  int32_t type; /* GP_TYPE_*, as in the table */
  int64_t integer;
  double real;
  const char* text;
  const double* list;
  size_t list_size;
} gp_value;

/* Pixels to read. Channel c of pixel (x, y) is data[y * stride + x * channels + c]. */
typedef struct gp_image_in {
  uint32_t struct_size;
  int32_t height;      /* pixels, > 0 */
  int32_t width;       /* pixels, > 0 */
  int32_t channels;    /* 3: red, green, blue */
  ptrdiff_t stride;    /* bytes from one row to the next, >= width * channels */
  const uint8_t* data; /* read only, never the memory of the output */
} gp_image_in;

/* Pixels to write, laid out in the same way. All of them must be written: what they hold before
 * is unspecified. The bytes between rows belong to the host. */
typedef struct gp_image_out {
  uint32_t struct_size;
  int32_t height;
  int32_t width;
  int32_t channels;
  ptrdiff_t stride;
  uint8_t* data;
} gp_image_out;

/* What the host offers during one call. All functions: on the calling thread only, until the call
 * returns. The random stream is the sample's own: it depends on the run's seed, the stage's
 * address, the epoch and the sample's key, and on nothing else. Other sources of randomness would
 * make runs irreproducible. There are no random numbers in create and output_shape. */
typedef struct gp_host {
  uint32_t struct_size;
  void* ctx; /* the host's own */
  /* 32 random bits. */
  uint32_t (*random_u32)(const struct gp_host* host);
  /* Uniform in [0, 1), a multiple of 2^-32; takes one random_u32. */
  double (*uniform)(const struct gp_host* host);
  /* Standard normal: mean 0, variance 1. */
  double (*normal)(const struct gp_host* host);
  /* Says why the call is about to return GP_ERROR or GP_DROP: one line for the user, UTF-8. It is
   * copied. The last call counts. */
  void (*fail)(const struct gp_host* host, const char* message);
} gp_host;

/* A kind of stage. Exactly one of `process` and `matrix` is given. */
typedef struct gp_stage {
  uint32_t struct_size;
  const char* name; /* what YAML calls it, "augment.flip": two or more parts [a-z][a-z0-9_]* with
                       dots between; unique among all that is loaded */
  const char* doc;  /* one line */
  int32_t in_kind;  /* GP_KIND_IMAGE */
  int32_t out_kind; /* GP_KIND_IMAGE */
  uint32_t flags;   /* GP_STAGE_* */
  const gp_param* const* params; /* may be NULL when n_params is 0 */
  size_t n_params;

  /* [setup thread] Makes an instance. `values` are the n_params parameters in the order of the
   * table, checked and with defaults filled in; copy what is to be kept. `*self` is handed to the
   * other functions, may hold tables computed here, and is read-only from then on; it is NULL
   * before the call and may stay so. GP_OK or GP_ERROR (then destroy is not called).
   * May be NULL where there are no parameters. */
  gp_status (*create)(const gp_host* host, const gp_value* const* values, size_t n_values,
                      void** self);

  /* [setup thread] Frees the instance. May be NULL. */
  void (*destroy)(void* self);

  /* [any thread, concurrent] The size of the output for an input of this size, in pixels. A side
   * that differs from sample to sample is 0: give 0 for every side of the output that depends on
   * it. For sizes > 0 the answer must be > 0 and always the same. GP_OK or GP_ERROR.
   * NULL: the output is as large as the input. */
  gp_status (*output_shape)(const void* self, const gp_host* host, int32_t in_height,
                            int32_t in_width, int32_t* out_height, int32_t* out_width);

  /* [any thread, concurrent] Writes `out`, which has the size that output_shape gave. GP_OK,
   * GP_DROP or GP_ERROR. */
  gp_status (*process)(const void* self, const gp_host* host, const gp_image_in* in,
                       const gp_image_out* out);

  /* [any thread, concurrent] For geometric stages: where each output pixel comes from. Pixel
   * (x, y) of the output shows the input at
   *   x_in = m[0] * x + m[1] * y + m[2]
   *   y_in = m[3] * x + m[4] * y + m[5],
   * pixel centres at integers. `height` and `width` are the input's. The host resamples, bilinear
   * with reflect-101 borders; it joins neighbouring geometric stages into one resampling, so a
   * picture is blurred once. The map must describe the stage completely. Finite numbers only.
   * `m` is the identity before the call. GP_OK or GP_ERROR. */
  gp_status (*matrix)(const void* self, const gp_host* host, int32_t height, int32_t width,
                      double m[6]);
} gp_stage;

/* What a plugin exports. The first three members keep their place in every version. */
typedef struct gp_plugin {
  uint32_t abi_major;   /* GP_ABI_MAJOR */
  uint32_t abi_minor;   /* GP_ABI_MINOR */
  uint32_t struct_size; /* sizeof(gp_plugin) */
  const char* name;     /* as its file is called, "augment_flip" */
  const char* version;  /* the plugin's own, "1.0.0" */
  const gp_stage* const* stages;
  size_t n_stages; /* >= 1 */
} gp_plugin;

/* Defined by the plugin: const gp_plugin gp_plugin_entry = {...}; */
extern GP_EXPORT const gp_plugin gp_plugin_entry;

#ifdef __cplusplus
}
#endif

#endif /* GP_PLUGIN_ABI_H */
