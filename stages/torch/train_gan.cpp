#include "stages/torch/train_gan.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "pipeline/error.hpp"
#include "stages/torch/stages.hpp"

namespace gp {
namespace {

constexpr char kName[] = "train.gan";

template <class Enum>
Enum choice(const Params& params, const std::string& name, const std::vector<std::string>& names) {
  const auto found = std::find(names.begin(), names.end(), params.text(name));
  return static_cast<Enum>(found - names.begin());
}

[[noreturn]] void refuse(const std::string& what) { throw ConfigError(kName + (": " + what)); }

std::vector<std::string> without(std::vector<std::string> names, const std::string& name) {
  names.erase(std::find(names.begin(), names.end(), name));
  return names;
}

/// Rounded: 1000 * 1.001 is less than 1001.
std::uint64_t images_of(const Params& params, const std::string& kimg) {
  return static_cast<std::uint64_t>(std::llround(1000 * params.real(kimg)));
}

bool is_size(double number) {
  return number >= 8 && number <= DcganConfig::kMaxResolution && std::floor(number) == number &&
         std::has_single_bit(static_cast<unsigned>(number));
}

}  // namespace

TrainGan::TrainGan(Params given) : GanTrainStage(kName, std::move(given)) {
  const std::string& loss = params().text("loss");
  if (params().real("label_smoothing") > 0 && loss != "bce" && loss != "least_squares") {
    refuse("label_smoothing moves the label that reals are trained towards, and loss: " + loss +
           " has none; leave it out, or take loss: bce or least_squares");
  }
  const bool augments = params().flag("augment_colour") || params().flag("augment_translation") ||
                        params().flag("augment_cutout");
  for (const auto& [name, is_set] :
       {std::pair("augment_target", params().real("augment_target") > 0),
        std::pair("augment_p", params().real("augment_p") < 1)}) {
    if (is_set && !augments) {
      refuse(std::string(name) +
             " says how often images are augmented, and no augmentation is on; set "
             "augment_colour, augment_translation or augment_cutout");
    }
  }
  if (params().real("augment_target") > 0 && params().real("augment_p") < 1) {
    refuse(
        "augment_target moves the probability of augmentation, from 0 on, and augment_p fixes "
        "it; leave one of them out");
  }
  if (params().integer("penalty_every") > 1 && params().real("r1") == 0 &&
      params().real("r2") == 0) {
    refuse("penalty_every spaces out penalties, and there are none; set r1 or r2");
  }
  const std::vector<double>& batches = params().real_list("phase_batch");
  if (!grows_in_phases()) {
    if (!batches.empty()) refuse("phase_batch is of growth: phases; set that, or size of batch");
    return;
  }
  for (const double batch : batches) {
    if (batch < 1 || std::floor(batch) != batch) {
      refuse("phase_batch: " + to_string(Value(batch)) + " is no number of images");
    }
  }
  if (!is_size(static_cast<double>(params().integer("final_resolution")))) {
    refuse("final_resolution = " + std::to_string(params().integer("final_resolution")) +
           " is not a power of two from 8 to 512; it is what image.resize gives in the end");
  }
  if (!is_size(static_cast<double>(params().integer("first_resolution"))) ||
      params().integer("first_resolution") > params().integer("final_resolution")) {
    refuse("first_resolution = " + std::to_string(params().integer("first_resolution")) +
           " is not a power of two from 8 to final_resolution");
  }
  const auto ratio = static_cast<unsigned>(params().integer("final_resolution") /
                                           params().integer("first_resolution"));
  const auto phases = static_cast<std::size_t>(std::countr_zero(ratio)) + 1;
  if (!batches.empty() && batches.size() != phases) {
    refuse("phase_batch has " + std::to_string(batches.size()) + " numbers, and there are " +
           std::to_string(phases) + " phases; give one for each, or none");
  }
  if (params().real("fade_kimg") > params().real("phase_kimg")) {
    refuse("fade_kimg is longer than phase_kimg, which includes it");
  }
}

ModelConfig TrainGan::model(const StreamInfo& stream) const {
  auto config = sizes<GanConfig>(stream);
  config.blocks = choice<GanConfig::Blocks>(params(), "blocks", GanConfig::block_names());
  config.norm_g = choice<GanConfig::Norm>(params(), "norm_g", GanConfig::norm_names());
  config.norm_d = choice<GanConfig::Norm>(params(), "norm_d", GanConfig::norm_names());
  config.minibatch_stddev = params().flag("minibatch_stddev");
  config.growth = choice<GanConfig::Growth>(params(), "growth", GanConfig::growth_names());
  // Without phases it means nothing, and a checkpoint's has to suit its resolution.
  if (grows_in_phases()) {
    config.first_resolution = static_cast<int>(params().integer("first_resolution"));
  }
  if (grows_in_phases() && config.resolution != params().integer("final_resolution")) {
    refuse("final_resolution = " + std::to_string(params().integer("final_resolution")) +
           ", and the images are " + to_string(stream.shape) + "; they must agree");
  }
  if (params().flag("conditional")) {
    config.classes = static_cast<int>(stream.class_names.size());
    if (config.classes > GanConfig::kMaxClasses) {
      refuse("conditional: true takes at most " + std::to_string(GanConfig::kMaxClasses) +
             " classes, and the source has " + std::to_string(config.classes));
    }
    if (config.classes < 1) {
      refuse("conditional: true needs classes, and the source has none; see its labels");
    }
  }
  return config;
}

std::vector<Phase> TrainGan::schedule() const {
  if (!grows_in_phases()) return {};
  const std::vector<double>& batches = params().real_list("phase_batch");
  std::vector<Phase> phases;
  for (std::int64_t size = params().integer("first_resolution");
       size <= params().integer("final_resolution"); size *= 2) {
    Phase phase;
    phase.images = images_of(params(), "phase_kimg");
    phase.shape = {static_cast<int>(size), static_cast<int>(size)};
    phase.overrides[params().text("phase_size")] = std::to_string(size);
    if (!batches.empty()) {
      phase.overrides["batch.size"] =
          std::to_string(static_cast<std::int64_t>(batches.at(phases.size())));
    }
    phases.push_back(std::move(phase));
  }
  return phases;
}

std::uint64_t TrainGan::images_until_grown() const {
  std::uint64_t images = 0;
  for (const Phase& phase : schedule()) images += phase.images;
  return images;
}

std::unique_ptr<AdversarialTrainer> TrainGan::make_trainer(const ModelConfig& model,
                                                           const TrainerOptions& options) const {
  GanObjective objective;
  objective.loss = gan_loss_of(params().text("loss"));
  objective.r1 = params().real("r1");
  objective.r2 = params().real("r2");
  objective.penalty_every = static_cast<int>(params().integer("penalty_every"));
  objective.augment = {params().flag("augment_colour"), params().flag("augment_translation"),
                       params().flag("augment_cutout")};
  objective.augment_p = params().real("augment_p");
  objective.augment_target = params().real("augment_target");
  objective.augment_speed_kimg = params().real("augment_speed_kimg");
  objective.growth.images = images_of(params(), "phase_kimg");
  objective.growth.fade_images = images_of(params(), "fade_kimg");
  return std::make_unique<GanTrainer>(std::get<GanConfig>(model), options, objective);
}

StageInfo train_gan_info() {
  StageInfo info;
  info.name = kName;
  info.doc =
      "Trains a GAN on square RGB images; networks, loss, penalties and augmentation are choices";
  info.in = Kind::kBatch;
  info.out = Kind::kSnapshot;
  info.concurrency = Concurrency::kSerial;
  TrainingDefaults defaults;
  defaults.beta1 = 0;
  defaults.beta2 = 0.99;
  defaults.latent = 128;
  defaults.dropout = 0;
  add_training_params(info.params, defaults);
  info.params
      .choice("loss", "hinge", gan_loss_names(),
              "bce: non-saturating (Goodfellow et al. 2014); hinge (Lim and Ye 2017); "
              "least_squares (Mao et al. 2017); relativistic: of pairs (Jolicoeur-Martineau 2018, "
              "as in R3GAN)")
      .choice("blocks", "plain", GanConfig::block_names(),
              "plain: one convolution a level, as in the DCGAN; residual: two beside a skip, after "
              "R3GAN (Huang et al. 2024)")
      .choice("norm_g", "batch", without(GanConfig::norm_names(), "spectral"),
              "normalisation in the generator")
      .choice("norm_d", "spectral", GanConfig::norm_names(),
              "in the discriminator; spectral: Miyato et al. 2018")
      .flag("minibatch_stddev", false,
            "shows the discriminator how much the images of a batch differ (Karras et al. 2018)")
      .flag("conditional", false,
            "draws by class: the source's labels enter both networks (projection: Miyato and "
            "Koyama 2018)")
      .real("r1", 0,
            "gamma of the penalty on the discriminator's gradient at reals (Mescheder et al. "
            "2018), by the pixels of the last phase; 0: none",
            0, 1e6)
      .real("r2", 0, "the same at fakes", 0, 1e6)
      .integer("penalty_every", 1,
               "steps between penalties, which are as many times larger (Karras et al. 2020)", 1,
               1000)
      .flag("augment_colour", false,
            "differentiable augmentation (Zhao et al. 2020) of all that the discriminator sees: "
            "brightness, saturation, contrast")
      .flag("augment_translation", false, "the same: by up to an eighth of the side")
      .flag("augment_cutout", false, "the same: a square of half the side becomes gray")
      .real("augment_p", 1, "the probability of each for an image", 0, 1)
      .real("augment_target", 0,
            "instead moves that probability until this is the mean sign of the discriminator's "
            "logits of reals (ADA: Karras et al. 2020, 0.6 there); 0: not so",
            0, 0.99)
      .real("augment_speed_kimg", 500, "thousands of images in which it can go from 0 to 1", 0.1,
            1e6)
      .choice("growth", "none", GanConfig::growth_names(),
              "skip: the generator's image is the sum of all levels' (Karras et al. 2020); phases: "
              "trained from small to large images (Karras et al. 2018)")
      .integer("first_resolution", 8, "of growth: phases; a power of two", 8,
               DcganConfig::kMaxResolution)
      .integer("final_resolution", 128, "of growth: phases; what image.resize gives in the end",
               DcganConfig::kMinResolution, DcganConfig::kMaxResolution)
      .real("phase_kimg", 600,
            "thousands of images that each resolution is trained on, the last one to the end", 1e-3,
            1e6)
      .real("fade_kimg", 300, "of them, while its layers fade in", 0, 1e6)
      .real_list("phase_batch", {}, "batch size of each phase; none: that of batch", 1, 1e6)
      .text("phase_size", "image.resize.size",
            "the parameter of a data stage that gives images of a phase's size");
  info.create = [](const Params& params) { return std::make_unique<TrainGan>(params); };
  return info;
}

}  // namespace gp
