#include "pipeline/plugin_stage.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "pipeline/error.hpp"

namespace gp {
namespace {

// A side beyond this is a plugin's mistake rather than a picture.
constexpr int kMaxSide = 1 << 16;

// Sizes of the structs as ABI 1.0 had them: the least a plugin may bring. They never change, even
// when members are appended.
template <class T>
constexpr std::size_t end_of(std::size_t offset) {
  return offset + sizeof(T);
}
constexpr std::size_t kStageSize10 = end_of<void*>(offsetof(gp_stage, matrix));
constexpr std::size_t kParamSize10 = end_of<std::size_t>(offsetof(gp_param, n_choices));

/// A host's copy of a plugin's struct: members that the plugin does not know are zero, those that
/// the host does not know are left out.
template <class T>
T known_part(const T* from) {
  T copy{};
  std::memcpy(&copy, from, std::min<std::size_t>(from->struct_size, sizeof(T)));
  return copy;
}

/// "plugin 'augment_flip' (/usr/lib/.../augment_flip.so)"
std::string describe(const std::string& plugin, const std::filesystem::path& file) {
  return "plugin '" + plugin + "' (" + file.string() + ")";
}

/// [a-z][a-z0-9_]*
bool is_identifier(std::string_view text) {
  return !text.empty() && text[0] >= 'a' && text[0] <= 'z' &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
         });
}

/// Two or more identifiers with dots between.
bool is_stage_name(std::string_view text) {
  int parts = 0;
  while (true) {
    const std::size_t dot = text.find('.');
    if (!is_identifier(text.substr(0, dot))) return false;
    ++parts;
    if (dot == std::string_view::npos) return parts >= 2;
    text.remove_prefix(dot + 1);
  }
}

/// What is wrong with a doc text; empty: nothing.
std::string doc_fault(const char* doc) {
  if (doc == nullptr || *doc == '\0') return "has no doc; give one line that says what it does";
  if (std::strchr(doc, '\n') != nullptr) return "has a doc of several lines; give one";
  return {};
}

/// One parameter of the plugin's table as the host's. Throws PluginError beginning with `where`.
ParamSpec param_spec(const gp_param& param, const std::string& where) {
  const auto fail = [&](const std::string& what) { throw PluginError(where + " " + what); };
  ParamSpec spec;
  spec.name = param.name;
  const std::string fault = doc_fault(param.doc);
  if (!fault.empty()) fail(fault);
  spec.doc = param.doc;
  if ((param.flags & ~(GP_PARAM_REQUIRED | GP_PARAM_MIN | GP_PARAM_MAX)) != 0) {
    fail("has unknown flags (" + std::to_string(param.flags) + ")");
  }
  if ((param.flags & GP_PARAM_MIN) != 0) spec.min = param.min;
  if ((param.flags & GP_PARAM_MAX) != 0) spec.max = param.max;
  Value default_value;
  switch (param.type) {
    case GP_TYPE_BOOL:
      spec.type = ParamType::kBool;
      if (param.default_int != 0 && param.default_int != 1) {
        fail("has the default " + std::to_string(param.default_int) + "; a bool is 0 or 1");
      }
      default_value = param.default_int != 0;
      break;
    case GP_TYPE_INT:
      spec.type = ParamType::kInt;
      default_value = param.default_int;
      break;
    case GP_TYPE_REAL:
      spec.type = ParamType::kReal;
      default_value = param.default_real;
      break;
    case GP_TYPE_STRING:
    case GP_TYPE_CHOICE:
      spec.type = param.type == GP_TYPE_STRING ? ParamType::kString : ParamType::kChoice;
      if (param.default_text == nullptr && (param.flags & GP_PARAM_REQUIRED) == 0) {
        fail("has no default_text and is not GP_PARAM_REQUIRED");
      }
      default_value = std::string(param.default_text == nullptr ? "" : param.default_text);
      break;
    case GP_TYPE_REAL_LIST:
      spec.type = ParamType::kRealList;
      if (param.n_default_list > 0 && param.default_list == nullptr) {
        fail("has a default_list of " + std::to_string(param.n_default_list) + " that is NULL");
      }
      default_value =
          param.n_default_list == 0
              ? std::vector<double>()
              : std::vector<double>(param.default_list, param.default_list + param.n_default_list);
      break;
    default:
      fail("has the unknown type " + std::to_string(param.type));
  }
  const bool ranged = spec.min || spec.max;
  if (ranged && param.type != GP_TYPE_INT && param.type != GP_TYPE_REAL &&
      param.type != GP_TYPE_REAL_LIST) {
    fail("has a range, which only numbers have");
  }
  // The negation also refuses NaN.
  if (spec.min && spec.max && !(*spec.min <= *spec.max)) {
    fail("has min = " + to_string(*spec.min) + " greater than max = " + to_string(*spec.max));
  }
  if ((spec.min && std::isnan(*spec.min)) || (spec.max && std::isnan(*spec.max))) {
    fail("has a range that is not a number");
  }
  if (param.n_choices > 0 && param.type != GP_TYPE_CHOICE) {
    fail("has choices, but its type is not GP_TYPE_CHOICE");
  }
  if (param.type == GP_TYPE_CHOICE) {
    if (param.n_choices == 0 || param.choices == nullptr) fail("is a choice without choices");
    for (std::size_t i = 0; i < param.n_choices; ++i) {
      const char* choice = param.choices[i];
      if (choice == nullptr || *choice == '\0') {
        fail("has choices[" + std::to_string(i) + "] empty or NULL");
      }
      if (std::find(spec.choices.begin(), spec.choices.end(), choice) != spec.choices.end()) {
        fail("has the choice '" + std::string(choice) + "' twice");
      }
      spec.choices.emplace_back(choice);
    }
  }
  if ((param.flags & GP_PARAM_REQUIRED) == 0) {
    try {
      spec.default_value = check_value(spec, default_value);
    } catch (const ConfigError& error) {
      fail(std::string("has a bad default: ") + error.what());
    }
  }
  return spec;
}

/// A checked descriptor, shared by all instances of the stage.
struct StageTable {
  gp_stage stage{};
  std::string where;  ///< begins every message
  ParamSchema schema;
  bool checked = false;
};

std::shared_ptr<const StageTable> check_stage(const gp_stage* descriptor, const std::string& plugin,
                                              const std::filesystem::path& file, bool checked) {
  const std::string origin = describe(plugin, file);
  if (descriptor->struct_size < kStageSize10) {
    throw PluginError(origin + ": a gp_stage of " + std::to_string(descriptor->struct_size) +
                      " bytes is too small, expected at least " + std::to_string(kStageSize10) +
                      ". Set struct_size to sizeof(gp_stage).");
  }
  auto table = std::make_shared<StageTable>();
  const gp_stage& stage = table->stage = known_part(descriptor);
  table->checked = checked;
  if (stage.name == nullptr || !is_stage_name(stage.name)) {
    throw PluginError(origin + ": the stage name " +
                      (stage.name == nullptr ? "NULL" : "'" + std::string(stage.name) + "'") +
                      " must be two or more words [a-z][a-z0-9_]* with dots between, such as "
                      "augment.flip.");
  }
  table->where = origin + ": stage '" + stage.name + "'";
  const auto fail = [&](const std::string& what) { throw PluginError(table->where + " " + what); };
  const std::string fault = doc_fault(stage.doc);
  if (!fault.empty()) fail(fault);
  if (stage.in_kind != GP_KIND_IMAGE || stage.out_kind != GP_KIND_IMAGE) {
    fail("turns kind " + std::to_string(stage.in_kind) + " into kind " +
         std::to_string(stage.out_kind) +
         "; plugins of this ABI turn images into images (GP_KIND_IMAGE = " +
         std::to_string(GP_KIND_IMAGE) + ")");
  }
  if ((stage.flags & ~(GP_STAGE_RANDOM | GP_STAGE_SERIAL)) != 0) {
    fail("has unknown flags (" + std::to_string(stage.flags) + ")");
  }
  if ((stage.process == nullptr) == (stage.matrix == nullptr)) {
    fail(stage.process == nullptr ? "has neither process nor matrix"
                                  : "has both process and matrix; a geometric stage has matrix "
                                    "only, every other process only");
  }
  if (stage.n_params > 0 && stage.params == nullptr) {
    fail("has n_params = " + std::to_string(stage.n_params) + ", but params is NULL");
  }
  if (stage.n_params > 0 && stage.create == nullptr) {
    fail("has parameters but no create to read them");
  }
  for (std::size_t i = 0; i < stage.n_params; ++i) {
    const std::string index = "params[" + std::to_string(i) + "]";
    if (stage.params[i] == nullptr) fail("has " + index + " NULL");
    if (stage.params[i]->struct_size < kParamSize10) {
      fail("has " + index + " of " + std::to_string(stage.params[i]->struct_size) +
           " bytes, expected at least " + std::to_string(kParamSize10) +
           ". Set struct_size to sizeof(gp_param).");
    }
    const gp_param param = known_part(stage.params[i]);
    if (param.name == nullptr || !is_identifier(param.name)) {
      fail("has " + index + " named " +
           (param.name == nullptr ? "NULL" : "'" + std::string(param.name) + "'") +
           ", expected [a-z][a-z0-9_]*");
    }
    const std::string name = param.name;
    if (name == "use" || name == "name") {
      fail("has a parameter '" + name + "', which every stage of a YAML has already");
    }
    if (table->schema.find(name) != nullptr) fail("has the parameter '" + name + "' twice");
    table->schema.add(param_spec(param, table->where + ": parameter '" + name + "'"));
  }
  return table;
}

/// Parameter values as the plugin gets them; borrows from `params`.
class PluginValues {
 public:
  PluginValues(const ParamSchema& schema, const Params& params) : values_(schema.specs().size()) {
    for (std::size_t i = 0; i < values_.size(); ++i) {
      values_[i] = value_of(schema.specs()[i], params);
      pointers_.push_back(&values_[i]);
    }
  }
  const gp_value* const* data() const { return pointers_.data(); }
  std::size_t size() const { return pointers_.size(); }

 private:
  static gp_value value_of(const ParamSpec& spec, const Params& params) {
    gp_value value{};
    value.struct_size = sizeof value;
    value.text = "";
    switch (spec.type) {
      case ParamType::kBool:
        value.type = GP_TYPE_BOOL;
        value.integer = params.flag(spec.name) ? 1 : 0;
        break;
      case ParamType::kInt:
        value.type = GP_TYPE_INT;
        value.integer = params.integer(spec.name);
        break;
      case ParamType::kReal:
        value.type = GP_TYPE_REAL;
        value.real = params.real(spec.name);
        break;
      case ParamType::kString:
        value.type = GP_TYPE_STRING;
        value.text = params.text(spec.name).c_str();
        break;
      case ParamType::kChoice:
        value.type = GP_TYPE_CHOICE;
        value.text = params.text(spec.name).c_str();
        value.integer =
            std::find(spec.choices.begin(), spec.choices.end(), params.text(spec.name)) -
            spec.choices.begin();
        break;
      case ParamType::kRealList:
        value.type = GP_TYPE_REAL_LIST;
        value.list = params.real_list(spec.name).data();
        value.list_size = params.real_list(spec.name).size();
        break;
      case ParamType::kPath:
      case ParamType::kOverrides:
      case ParamType::kStages:
        break;  // no plugin can declare them
    }
    return value;
  }

  std::vector<gp_value> values_;
  std::vector<const gp_value*> pointers_;
};

/// One call into a plugin: what it may use, and what it said.
class Call {
 public:
  /// `rng` null: the call has no random numbers.
  Call(const StageTable& table, const char* function, Rng* rng)
      : table_(table), function_(function), rng_(rng) {
    host_.struct_size = sizeof host_;
    host_.ctx = this;
    host_.random_u32 = [](const gp_host* host) {
      Rng* stream = self(host).draw();
      return stream == nullptr ? 0U : stream->next_u32();
    };
    host_.uniform = [](const gp_host* host) {
      Rng* stream = self(host).draw();
      return stream == nullptr ? 0.0 : stream->uniform(0.0, 1.0);
    };
    host_.normal = [](const gp_host* host) {
      Rng* stream = self(host).draw();
      return stream == nullptr ? 0.0 : static_cast<double>(stream->normal());
    };
    host_.fail = [](const gp_host* host, const char* message) {
      try {
        self(host).message_ = message == nullptr ? "" : message;
      } catch (...) {  // out of memory: the text is lost, the status is not
      }
    };
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  const gp_host* host() const { return &host_; }

  /// Calls `body`, which calls the plugin, and returns its status: GP_OK, GP_DROP or GP_ERROR.
  template <class Body>
  gp_status run(const Body& body) {
    gp_status status = GP_OK;
    try {
      status = body();
    } catch (const std::exception& error) {
      fault(std::string("let an exception out of the C interface: ") + error.what() +
            ". A plugin must catch it and return GP_ERROR; plugin_sdk.hpp does.");
    } catch (...) {
      fault(
          "let an exception out of the C interface. A plugin must catch it and return GP_ERROR; "
          "plugin_sdk.hpp does.");
    }
    if (illegal_draw_) {
      fault(rng_ == nullptr
                ? "drew a random number, but this function has none: results would not be "
                  "reproducible. Draw in process or matrix."
                : "drew a random number, but the stage does not declare it. Set GP_STAGE_RANDOM "
                  "(in the SDK: static constexpr bool random = true).");
    }
    if (status != GP_OK && status != GP_DROP && status != GP_ERROR) {
      fault("returned the status " + std::to_string(status) +
            "; expected GP_OK (0), GP_DROP (1) or GP_ERROR (2)");
    }
    return status;
  }

  /// What the plugin said, or `otherwise`.
  std::string message(const char* otherwise) const {
    return message_.empty() ? otherwise : message_;
  }

  [[noreturn]] void fault(const std::string& what) const {
    throw PluginError(table_.where + ": " + function_ + " " + what);
  }

 private:
  static Call& self(const gp_host* host) { return *static_cast<Call*>(host->ctx); }
  Rng* draw() {
    if (rng_ != nullptr && (table_.stage.flags & GP_STAGE_RANDOM) != 0) return rng_;
    illegal_draw_ = true;
    return nullptr;
  }

  const StageTable& table_;
  const char* function_;
  Rng* rng_;
  gp_host host_{};
  bool illegal_draw_ = false;
  std::string message_;
};

/// A copy of an image with guard bytes around it, to catch writes outside.
class GuardedImage {
 public:
  explicit GuardedImage(ImageShape shape)
      : shape_(shape), bytes_(shape.bytes() + 2 * kGuard, kPattern) {}

  ImageView view() {
    return {bytes_.data() + kGuard, shape_.height, shape_.width,
            static_cast<std::ptrdiff_t>(shape_.width) * kChannels};
  }
  bool guards_intact() const {
    const auto is_pattern = [](std::uint8_t byte) { return byte == kPattern; };
    return std::all_of(bytes_.begin(), bytes_.begin() + kGuard, is_pattern) &&
           std::all_of(bytes_.end() - kGuard, bytes_.end(), is_pattern);
  }

 private:
  static constexpr std::ptrdiff_t kGuard = 4096;
  static constexpr std::uint8_t kPattern = 0xA5;
  ImageShape shape_;
  std::vector<std::uint8_t> bytes_;
};

bool equal_pixels(ConstImageView a, ConstImageView b) {
  for (int y = 0; y < a.height; ++y) {
    if (std::memcmp(a.row(y), b.row(y), static_cast<std::size_t>(a.width) * kChannels) != 0) {
      return false;
    }
  }
  return true;
}

/// An instance of a plugin's stage. Thread-safe as far as the plugin keeps to the ABI.
class PluginStage : public TransformStage {
 public:
  PluginStage(std::shared_ptr<const StageTable> table, const Params& params)
      : table_(std::move(table)) {
    if (stage().create == nullptr) return;
    const PluginValues values(table_->schema, params);
    Call call(*table_, "create", nullptr);
    const gp_status status =
        call.run([&] { return stage().create(call.host(), values.data(), values.size(), &self_); });
    if (status == GP_DROP) call.fault("returned GP_DROP; expected GP_OK or GP_ERROR");
    if (status == GP_ERROR) {
      throw PluginError(table_->where +
                        " can't be made: " + call.message("the plugin gave no reason"));
    }
  }
  PluginStage(const PluginStage&) = delete;
  PluginStage& operator=(const PluginStage&) = delete;
  ~PluginStage() override {
    if (stage().destroy == nullptr) return;
    try {
      stage().destroy(self_);
    } catch (...) {  // nobody is left to tell
    }
  }

  ImageShape output_shape(ImageShape in) const override {
    if (stage().output_shape == nullptr) return in;
    Call call(*table_, "output_shape", nullptr);
    std::int32_t height = 0;
    std::int32_t width = 0;
    check_sample(call, call.run([&] {
      return stage().output_shape(self_, call.host(), in.height, in.width, &height, &width);
    }));
    // Sides may be open only where the input's are.
    const int least = in.fixed() ? 1 : 0;
    if (height < least || width < least || height > kMaxSide || width > kMaxSide) {
      call.fault("made " + std::to_string(width) + "x" + std::to_string(height) +
                 " pixels (width x height) out of " + std::to_string(in.width) + "x" +
                 std::to_string(in.height) + "; expected " + std::to_string(least) + " to " +
                 std::to_string(kMaxSide) + " a side");
    }
    return {height, width};
  }

  Affine matrix(ImageShape in, Rng& rng) const override {
    Call call(*table_, "matrix", &rng);
    Affine map;
    check_sample(call, call.run([&] {
      return stage().matrix(self_, call.host(), in.height, in.width, map.m);
    }));
    if (!std::all_of(std::begin(map.m), std::end(map.m),
                     [](double v) { return std::isfinite(v); })) {
      call.fault("gave a map that is not finite. All six numbers must be.");
    }
    return map;
  }

  void process(const StageInput& in, Rng& rng, StageOutput& out) const override {
    const ImageShape shape = output_shape(in.image.shape());
    if (stage().matrix != nullptr) {
      const Affine map = matrix(in.image.shape(), rng);
      if (map.is_identity() && shape == in.image.shape()) {
        out.pass_through();
      } else {
        warp_affine(in.image, map, out.image(shape.height, shape.width));
      }
      return;
    }
    Call call(*table_, "process", &rng);
    const ImageView target = out.image(shape.height, shape.width);
    const gp_status status = table_->checked ? call_checked(call, in.image, target)
                                             : call_process(call, in.image, target);
    if (status == GP_DROP) {
      out.drop(call.message("dropped by the plugin"));
    } else {
      check_sample(call, status);
    }
  }

 private:
  const gp_stage& stage() const { return table_->stage; }

  /// For functions that can't drop a sample: a SampleError or nothing.
  static void check_sample(const Call& call, gp_status status) {
    if (status == GP_DROP) call.fault("returned GP_DROP; only process may drop a sample");
    if (status == GP_ERROR) throw SampleError(call.message("the plugin gave no reason"));
  }

  gp_status call_process(Call& call, ConstImageView in, ImageView out) const {
    const gp_image_in source{sizeof(gp_image_in), in.height, in.width,
                             kChannels,           in.stride, in.data};
    const gp_image_out target{sizeof(gp_image_out), out.height, out.width, kChannels,
                              out.stride,           out.data};
    return call.run([&] { return stage().process(self_, call.host(), &source, &target); });
  }

  gp_status call_checked(Call& call, ConstImageView in, ImageView out) const {
    GuardedImage source(in.shape());
    GuardedImage target(out.shape());
    copy_image(in, source.view());
    const gp_status status = call_process(call, source.view(), target.view());
    if (!target.guards_intact()) {
      call.fault(
          "wrote outside its output image. Row y begins at data + y * stride and has width * "
          "channels bytes; there are height of them.");
    }
    if (!source.guards_intact() || !equal_pixels(in, source.view())) {
      call.fault("wrote into its input image, which is read-only. Write into `out` only.");
    }
    copy_image(target.view(), out);
    return status;
  }

  std::shared_ptr<const StageTable> table_;
  void* self_ = nullptr;
};

}  // namespace

StageInfo plugin_stage_info(const gp_stage* descriptor, const std::string& plugin,
                            const std::filesystem::path& file, bool checked) {
  const auto table = check_stage(descriptor, plugin, file, checked);
  StageInfo info;
  info.name = table->stage.name;
  info.doc = table->stage.doc;
  info.in = Kind::kImage;
  info.out = Kind::kImage;
  info.random = (table->stage.flags & GP_STAGE_RANDOM) != 0;
  info.geometric = table->stage.matrix != nullptr;
  info.concurrency =
      (table->stage.flags & GP_STAGE_SERIAL) != 0 ? Concurrency::kSerial : Concurrency::kUnlimited;
  info.params = table->schema;
  info.create = [table](const Params& params) -> std::unique_ptr<Stage> {
    return std::make_unique<PluginStage>(table, params);
  };
  return info;
}

bool check_plugins_by_default() {
#if !defined(NDEBUG) || defined(__SANITIZE_ADDRESS__)
  return true;
#else
  const char* value = std::getenv("GAN_PIPELINE_CHECK_PLUGINS");
  return value != nullptr && std::string_view(value) == "1";
#endif
}

}  // namespace gp
