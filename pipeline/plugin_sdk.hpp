#pragma once

// For authors of plugins in C++17 or later: write a struct, get the C ABI of plugin_abi.h.
//
//   #include "pipeline/plugin_sdk.hpp"
//
//   struct Invert {
//     static constexpr auto name = "augment.invert";           // what YAML calls it
//     static constexpr auto doc = "Turns light into dark with probability p.";
//     static constexpr bool random = true;                     // draws random numbers
//
//     double p = 0.5;                                          // parameters, with their defaults
//
//     static void params(gp::sdk::Params<Invert>& params) {
//       params.add("p", &Invert::p, "probability", 0, 1);
//     }
//     void process(gp::sdk::Host& host, gp::sdk::ImageIn in, gp::sdk::ImageOut out) const {
//       ...                                                    // write every pixel of out
//     }
//   };
//   GP_PLUGIN("augment_invert", "1.0.0", Invert)
//
// A stage has one of
//   void process(Host&, ImageIn, ImageOut) const   pixels in, pixels out
//   Matrix matrix(Host&, Size in) const            a geometric stage: the host resamples
// and may have
//   static void params(Params<T>&)                 its parameters
//   void init()                                    makes tables once the parameters are set
//   Size output_size(Size in) const                where it differs from the input's
//   static constexpr bool random, serial           see GP_STAGE_RANDOM, GP_STAGE_SERIAL
// `process`, `matrix` and `output_size` run on several threads at once, hence `const`.
//
// Throw any std::exception: from init() it means that the stage can't be made, elsewhere that this
// sample is bad. Throw gp::sdk::Drop to leave a sample out on purpose.

#include <climits>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "pipeline/plugin_abi.h"

// Hidden, so that templates over two plugins' structs of the same name stay apart in one process:
// the linker would merge their static members even under RTLD_LOCAL.
#pragma GCC visibility push(hidden)

namespace gp::sdk {

/// Height and width in pixels. In output_size a side of 0 differs from sample to sample.
struct Size {
  int height = 0;
  int width = 0;
};

/// Pixels to read: row(y)[3 * x + c], c = red, green, blue.
struct ImageIn {
  const std::uint8_t* data = nullptr;
  int height = 0;
  int width = 0;
  std::ptrdiff_t stride = 0;  ///< bytes between rows

  const std::uint8_t* row(int y) const { return data + y * stride; }
};

/// Pixels to write, all of them.
struct ImageOut {
  std::uint8_t* data = nullptr;
  int height = 0;
  int width = 0;
  std::ptrdiff_t stride = 0;  ///< bytes between rows

  std::uint8_t* row(int y) const { return data + y * stride; }
};

/// Copies an image into one of the same size.
inline void copy(ImageIn in, ImageOut out) {
  for (int y = 0; y < in.height; ++y) {
    std::memcpy(out.row(y), in.row(y), static_cast<std::size_t>(in.width) * 3);
  }
}

/// Where row or column i of n lies when the image is mirrored about its outermost pixels
/// (reflect-101, the host's own way with borders).
inline int mirrored(int i, int n) {
  if (n == 1) return 0;
  i = (i < 0 ? -i : i) % (2 * n - 2);
  return i < n ? i : 2 * n - 2 - i;
}

/// Where each output pixel comes from: x_in = m[0] x + m[1] y + m[2], y_in = m[3] x + m[4] y +
/// m[5], pixel centres at integers. The identity by default.
struct Matrix {
  double m[6] = {1, 0, 0, 0, 1, 0};
};

/// Leaves the sample out of the pipeline on purpose; counted apart from errors. From process
/// only.
class Drop : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The random numbers of one sample; the only ones that a plugin may use.
class Host {
 public:
  explicit Host(const gp_host& host) : host_(host) {}
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  std::uint32_t random_u32() { return host_.random_u32(&host_); }
  /// Uniform in [0, 1).
  double uniform() { return host_.uniform(&host_); }
  /// Uniform in [low, high).
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  /// Standard normal.
  double normal() { return host_.normal(&host_); }
  /// True with probability p. Always one draw.
  bool chance(double p) { return uniform() < p; }

 private:
  const gp_host& host_;
};

/// The parameters of stage T: each is a member of T, whose initial value is the default.
/// Ranges are inclusive and are checked by the host.
template <class T>
class Params {
 public:
  static constexpr double kNoMin = -std::numeric_limits<double>::infinity();
  static constexpr double kNoMax = std::numeric_limits<double>::infinity();

  void add(const char* name, bool T::*member, const char* doc) {
    Entry& entry = append(name, GP_TYPE_BOOL, doc);
    entry.param.default_int = defaults_.*member ? 1 : 0;
    entry.set = [member](T& self, const gp_value& value) { self.*member = value.integer != 0; };
  }
  void add(const char* name, int T::*member, const char* doc, double min = INT_MIN,
           double max = INT_MAX) {
    Entry& entry = append(name, GP_TYPE_INT, doc, min, max);
    entry.param.default_int = defaults_.*member;
    entry.set = [member](T& self, const gp_value& value) {
      self.*member = static_cast<int>(value.integer);
    };
  }
  void add(const char* name, double T::*member, const char* doc, double min = kNoMin,
           double max = kNoMax) {
    Entry& entry = append(name, GP_TYPE_REAL, doc, min, max);
    entry.param.default_real = defaults_.*member;
    entry.set = [member](T& self, const gp_value& value) { self.*member = value.real; };
  }
  void add(const char* name, std::string T::*member, const char* doc) {
    Entry& entry = append(name, GP_TYPE_STRING, doc);
    entry.text = defaults_.*member;
    entry.param.default_text = entry.text.c_str();
    entry.set = [member](T& self, const gp_value& value) { self.*member = value.text; };
  }
  void add(const char* name, std::vector<double> T::*member, const char* doc, double min = kNoMin,
           double max = kNoMax) {
    Entry& entry = append(name, GP_TYPE_REAL_LIST, doc, min, max);
    entry.list = defaults_.*member;
    entry.param.default_list = entry.list.data();
    entry.param.n_default_list = entry.list.size();
    entry.set = [member](T& self, const gp_value& value) {
      (self.*member).assign(value.list, value.list + value.list_size);
    };
  }
  /// One of a few words.
  void choice(const char* name, std::string T::*member, const char* doc,
              std::initializer_list<const char*> choices) {
    add(name, member, doc);
    Entry& entry = entries_.back();
    entry.choices = choices;
    entry.param.type = GP_TYPE_CHOICE;
    entry.param.choices = entry.choices.data();
    entry.param.n_choices = entry.choices.size();
  }
  /// Makes the parameter added last required: it has no default.
  void required() { entries_.back().param.flags |= GP_PARAM_REQUIRED; }

  const gp_param* const* table() const { return table_.data(); }
  std::size_t size() const { return table_.size(); }
  void set(T& self, const gp_value* const* values) const {
    for (std::size_t i = 0; i < entries_.size(); ++i) entries_[i].set(self, *values[i]);
  }

 private:
  struct Entry {
    gp_param param{};
    std::function<void(T&, const gp_value&)> set;
    std::string text;
    std::vector<double> list;
    std::vector<const char*> choices;
  };

  Entry& append(const char* name, std::int32_t type, const char* doc, double min = kNoMin,
                double max = kNoMax) {
    Entry& entry = entries_.emplace_back();
    entry.param.struct_size = sizeof(gp_param);
    entry.param.type = type;
    entry.param.flags = (min != kNoMin ? GP_PARAM_MIN : 0U) | (max != kNoMax ? GP_PARAM_MAX : 0U);
    entry.param.name = name;
    entry.param.doc = doc;
    entry.param.min = min;
    entry.param.max = max;
    table_.push_back(&entry.param);
    return entry;
  }

  T defaults_{};
  std::deque<Entry> entries_;  // never moves an entry
  std::vector<const gp_param*> table_;
};

namespace detail {

template <class T, class = void>
struct HasParams : std::false_type {};
template <class T>
struct HasParams<T, std::void_t<decltype(&T::params)>> : std::true_type {};
template <class T, class = void>
struct HasInit : std::false_type {};
template <class T>
struct HasInit<T, std::void_t<decltype(&T::init)>> : std::true_type {};
template <class T, class = void>
struct HasOutputSize : std::false_type {};
template <class T>
struct HasOutputSize<T, std::void_t<decltype(&T::output_size)>> : std::true_type {};
template <class T, class = void>
struct HasProcess : std::false_type {};
template <class T>
struct HasProcess<T, std::void_t<decltype(&T::process)>> : std::true_type {};
template <class T, class = void>
struct HasMatrix : std::false_type {};
template <class T>
struct HasMatrix<T, std::void_t<decltype(&T::matrix)>> : std::true_type {};
template <class T, class = void>
struct IsRandom : std::false_type {};
template <class T>
struct IsRandom<T, std::void_t<decltype(T::random)>> : std::bool_constant<T::random> {};
template <class T, class = void>
struct IsSerial : std::false_type {};
template <class T>
struct IsSerial<T, std::void_t<decltype(T::serial)>> : std::bool_constant<T::serial> {};

/// Runs `body`; no exception passes the C boundary.
template <class Body>
gp_status guard(const gp_host* host, const Body& body) noexcept {
  try {
    body();
    return GP_OK;
  } catch (const Drop& drop) {
    host->fail(host, drop.what());
    return GP_DROP;
  } catch (const std::exception& error) {
    host->fail(host, error.what());
  } catch (...) {
    host->fail(host, "the plugin threw something that is no std::exception");
  }
  return GP_ERROR;
}

/// The C functions and the table of one stage.
template <class T>
struct Adapter {
  static_assert(HasProcess<T>::value != HasMatrix<T>::value,
                "a stage has either process() or matrix()");

  static const Params<T>& params() {
    static const Params<T> kParams = [] {
      Params<T> made;
      if constexpr (HasParams<T>::value) T::params(made);
      return made;
    }();
    return kParams;
  }

  static gp_status create(const gp_host* host, const gp_value* const* values, std::size_t /*n*/,
                          void** self) noexcept {
    return guard(host, [&] {
      T made{};
      params().set(made, values);
      if constexpr (HasInit<T>::value) made.init();
      *self = new T(std::move(made));
    });
  }
  static void destroy(void* self) noexcept { delete static_cast<T*>(self); }

  static gp_status output_shape(const void* self, const gp_host* host, std::int32_t in_height,
                                std::int32_t in_width, std::int32_t* out_height,
                                std::int32_t* out_width) noexcept {
    return guard(host, [&] {
      const Size size = static_cast<const T*>(self)->output_size(Size{in_height, in_width});
      *out_height = size.height;
      *out_width = size.width;
    });
  }
  static gp_status process(const void* self, const gp_host* host, const gp_image_in* in,
                           const gp_image_out* out) noexcept {
    return guard(host, [&] {
      Host wrapped(*host);
      static_cast<const T*>(self)->process(
          wrapped, ImageIn{in->data, in->height, in->width, in->stride},
          ImageOut{out->data, out->height, out->width, out->stride});
    });
  }
  static gp_status matrix(const void* self, const gp_host* host, std::int32_t height,
                          std::int32_t width, double m[6]) noexcept {
    return guard(host, [&] {
      Host wrapped(*host);
      const Matrix result = static_cast<const T*>(self)->matrix(wrapped, Size{height, width});
      std::memcpy(m, result.m, sizeof result.m);
    });
  }

  static gp_stage make() {
    gp_stage stage{};
    stage.struct_size = sizeof(gp_stage);
    stage.name = T::name;
    stage.doc = T::doc;
    stage.in_kind = GP_KIND_IMAGE;
    stage.out_kind = GP_KIND_IMAGE;
    stage.flags =
        (IsRandom<T>::value ? GP_STAGE_RANDOM : 0U) | (IsSerial<T>::value ? GP_STAGE_SERIAL : 0U);
    stage.params = params().table();
    stage.n_params = params().size();
    stage.create = &create;
    stage.destroy = &destroy;
    if constexpr (HasOutputSize<T>::value) stage.output_shape = &output_shape;
    if constexpr (HasProcess<T>::value) stage.process = &process;
    if constexpr (HasMatrix<T>::value) stage.matrix = &matrix;
    return stage;
  }

  static const gp_stage stage;
};
template <class T>
const gp_stage Adapter<T>::stage = Adapter<T>::make();

template <class... T>
struct Stages {
  static constexpr const gp_stage* list[] = {&Adapter<T>::stage...};
};

}  // namespace detail
}  // namespace gp::sdk

#pragma GCC visibility pop

/// Exports the plugin: its name, its version, its stages.
#define GP_PLUGIN(plugin_name, plugin_version, ...) \
  const gp_plugin gp_plugin_entry = {               \
      GP_ABI_MAJOR,                                 \
      GP_ABI_MINOR,                                 \
      sizeof(gp_plugin),                            \
      plugin_name,                                  \
      plugin_version,                               \
      ::gp::sdk::detail::Stages<__VA_ARGS__>::list, \
      sizeof(::gp::sdk::detail::Stages<__VA_ARGS__>::list) / sizeof(const gp_stage*)};
