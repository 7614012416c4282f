#include "stages/torch/gan_trainer.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <limits>

#include "stages/torch/autocast.hpp"
#include "stages/torch/gradient_penalty.hpp"
#include "stages/torch/random_tensor.hpp"

namespace gp {
namespace {

template <class Network>
Network with_weights(Network network, std::uint64_t seed) {
  init_gan_weights(network, seed);
  return network;
}

/// The parts that a batch is computed in; `tensor` may be undefined, as labels are.
std::vector<at::Tensor> parts_of(const at::Tensor& tensor, int count, std::size_t parts) {
  if (!tensor.defined()) return std::vector<at::Tensor>(parts);
  return tensor.chunk(count);
}

/// Before anything has changed.
void check_labels(const at::Tensor& labels, std::int64_t count, int classes) {
  TORCH_CHECK(labels.defined() && labels.dim() == 1 && labels.size(0) == count &&
                  labels.scalar_type() == at::kLong && labels.is_cpu(),
              "a model with classes trains on labels, int64 [", count, "] on the CPU; found ",
              labels.defined() ? labels.toString() : "none");
  const at::Tensor wrong = labels.lt(0).logical_or(labels.ge(classes));
  if (!wrong.any().item<bool>()) return;
  TORCH_CHECK(false, "label ", labels.masked_select(wrong)[0].item<std::int64_t>(),
              " is outside [0, ", classes, "): the model has ", classes, " classes");
}

/// Reals while new layers fade in: as sharp as the fakes can be (Karras et al. 2018, appendix A.1).
at::Tensor faded(const at::Tensor& images, double fade) {
  const at::NoGradGuard no_grad;
  const at::Tensor coarse =
      at::upsample_nearest2d(at::avg_pool2d(images, {2, 2}), {images.size(2), images.size(3)});
  return coarse.lerp(images, fade);
}

void add_to(at::Tensor& sum, const at::Tensor& value) {
  sum = sum.defined() ? sum + value.detach() : value.detach();
}

}  // namespace

GrowthPoint GrowthSchedule::at(std::uint64_t seen, std::int64_t count,
                               const GanConfig& model) const {
  GrowthPoint point{model.first_resolution, 1};
  while (point.resolution < model.resolution && seen >= images) {
    seen -= images;
    point.resolution *= 2;
  }
  if (point.resolution > model.first_resolution && fade_images > 0) {
    point.fade = std::min(1.0, static_cast<double>(seen + static_cast<std::uint64_t>(count)) /
                                   static_cast<double>(fade_images));
  }
  return point;
}

std::uint64_t GrowthSchedule::images_before(int resolution, const GanConfig& model) const {
  std::uint64_t seen = 0;
  for (int size = model.first_resolution; size < resolution; size *= 2) seen += images;
  return seen;
}

GanTrainer::GanTrainer(const GanConfig& config, const TrainerOptions& options,
                       const GanObjective& objective)
    : GanTrainer(config, options, objective, with_weights(GanGenerator(config), options.seed),
                 with_weights(GanDiscriminator(config), options.seed)) {}

GanTrainer::GanTrainer(const GanConfig& config, const TrainerOptions& options,
                       const GanObjective& objective, GanGenerator generator,
                       GanDiscriminator discriminator)
    : AdversarialTrainer(config, options, generator.ptr(), discriminator.ptr()),
      config_(config),
      objective_(objective),
      generator_(std::move(generator)),
      discriminator_(std::move(discriminator)),
      class_counts_(at::zeros({config.classes}, at::kLong)) {
  if (objective.augments() && objective.augment_target > 0) {
    AdaptiveAugment::Options adaptive;
    adaptive.target = objective.augment_target;
    adaptive.speed_kimg = objective.augment_speed_kimg;
    adaptive_ = std::make_unique<AdaptiveAugment>(adaptive);
  }
}

double GanTrainer::augment_p() const {
  if (!objective_.augments()) return 0;
  return adaptive_ ? adaptive_->p() : objective_.augment_p;
}

at::Tensor GanTrainer::generate(const at::Tensor& z, const at::Tensor& labels) {
  const AutocastScope autocast(options().device.type(), options().bf16);
  return generator_(z, labels);
}

at::Tensor GanTrainer::augmented(const at::Tensor& images, const std::string& pass) const {
  if (augment_p() <= 0) return images;
  return augment(images, objective_.augment, augment_p(),
                 {options().seed, "augment." + pass, steps()});
}

at::Tensor GanTrainer::discriminate(const at::Tensor& images, const at::Tensor& labels,
                                    const std::string& pass, bool for_penalty) {
  const AutocastScope autocast(options().device.type(), options().bf16 && !for_penalty);
  std::optional<DropoutKey> dropout;
  if (config_.dropout > 0) dropout = DropoutKey{options().seed, steps(), pass};
  return discriminator_(images, labels, dropout, for_penalty);
}

int GanTrainer::period() const {
  return objective_.r1 > 0 || objective_.r2 > 0 ? objective_.penalty_every : 1;
}

GanTrainer::DUpdate GanTrainer::train_discriminator(const at::Tensor& reals,
                                                    const at::Tensor& fakes,
                                                    const at::Tensor& labels, std::size_t number) {
  discriminator_->update_spectral();
  const auto every = static_cast<std::uint64_t>(objective_.penalty_every);
  const bool penalty = steps() % every == 0;
  const bool with_r1 = penalty && objective_.r1 > 0;
  const bool with_r2 = penalty && objective_.r2 > 0;
  // By a pixel of the last resolution, of k x k that show the same: 1 / k of the gradient's norm.
  const double k = grows() ? static_cast<double>(config_.resolution) / growth().resolution : 1;
  const std::vector<at::Tensor> real_parts = reals.chunk(options().accumulate);
  const std::vector<at::Tensor> fake_parts = fakes.chunk(options().accumulate);
  const std::vector<at::Tensor> label_parts =
      parts_of(labels, options().accumulate, real_parts.size());

  DUpdate result;
  std::vector<at::Tensor> logits_real, logits_fake;
  for (std::size_t part = 0; part < real_parts.size(); ++part) {
    const std::string suffix = options().accumulate > 1 ? ".part" + std::to_string(part) : "";
    const auto pass = [&](const at::Tensor& images, const char* name, bool for_penalty) {
      const std::string of = numbered(name, number) + suffix;
      const at::Tensor seen = augmented(images, of).detach();
      seen.set_requires_grad(for_penalty);
      return std::pair(seen, discriminate(seen, label_parts[part], of, for_penalty));
    };
    const auto [real, on_real] = pass(real_parts[part], "real", with_r1);
    const auto [fake, on_fake] = pass(fake_parts[part], "fake", with_r2);
    const DiscriminatorLoss loss =
        discriminator_loss(objective_.loss, on_real, on_fake, options().label_smoothing);
    at::Tensor total = loss.real + loss.fake;
    const double share =
        static_cast<double>(real_parts[part].size(0)) / static_cast<double>(reals.size(0));
    const auto add_penalty = [&](const at::Tensor& logits, const at::Tensor& images, double gamma,
                                 at::Tensor& measured) {
      const at::Tensor norm = gradient_penalty(logits, images) / (k * k);
      total = total + norm * (gamma / 2 * static_cast<double>(every));
      add_to(measured, norm * share);
    };
    if (with_r1) add_penalty(on_real, real, objective_.r1, result.r1);
    if (with_r2) add_penalty(on_fake, fake, objective_.r2, result.r2);
    (total * share).backward();
    add_to(result.loss_real, loss.real * share);
    add_to(result.loss_fake, loss.fake * share);
    logits_real.push_back(on_real.detach());
    logits_fake.push_back(on_fake.detach());
  }
  result.logits_real = at::cat(logits_real);
  result.logits_fake = at::cat(logits_fake);
  result.norm = optimizer_d().gradient_norm();
  optimizer_d().step(learning_rate_factor());
  return result;
}

at::Tensor GanTrainer::train_generator(const at::Tensor& reals, const at::Tensor& z,
                                       const at::Tensor& fakes, const at::Tensor& labels) {
  const bool again = !fakes.defined();
  const std::optional<KeptBuffers> kept =
      again ? std::make_optional<KeptBuffers>(*generator_) : std::nullopt;
  const std::vector<at::Tensor> z_parts = z.chunk(options().accumulate);
  const std::vector<at::Tensor> real_parts = reals.chunk(options().accumulate);
  const std::vector<at::Tensor> label_parts =
      parts_of(labels, options().accumulate, z_parts.size());
  at::Tensor sum;
  for (std::size_t part = 0; part < z_parts.size(); ++part) {
    const std::string pass =
        options().accumulate > 1 ? "generator.part" + std::to_string(part) : "generator";
    at::Tensor on_real;
    if (needs_pairs(objective_.loss)) {
      const at::NoGradGuard no_grad;
      on_real = discriminate(augmented(real_parts[part], pass + ".real"), label_parts[part],
                             pass + ".real", false);
    }
    const at::Tensor images = again ? generate(z_parts[part], label_parts[part]) : fakes;
    const at::Tensor on_fake =
        discriminate(augmented(images, pass), label_parts[part], pass, false);
    const at::Tensor loss =
        generator_loss(objective_.loss, on_fake, on_real) *
        (static_cast<double>(z_parts[part].size(0)) / static_cast<double>(z.size(0)));
    loss.backward();
    add_to(sum, loss);
  }
  return sum;
}

std::vector<at::Tensor> GanTrainer::update(const at::Tensor& sharp, const at::Tensor& labels) {
  const std::int64_t count = sharp.size(0);
  if (config_.classes > 0) check_labels(labels, count, config_.classes);
  if (grows()) {
    set_growth(objective_.growth.at(images(), count, config_));
  }
  const at::Tensor reals = growth().fade < 1 ? faded(sharp, growth().fade) : sharp;
  at::Tensor classes;
  if (config_.classes > 0) {
    class_counts_ += at::bincount(labels, {}, config_.classes);
    classes = labels.to(options().device);
  }
  // Where G's pass is made anew, that for D needs no graph, and may be made in parts.
  const bool again = options().accumulate > 1;

  DUpdate measured;
  at::Tensor z, fakes, norm_d;
  for (std::size_t i = 0; i < static_cast<std::size_t>(options().d_steps); ++i) {
    const bool last = i + 1 == static_cast<std::size_t>(options().d_steps);
    z = normal_tensor({count, config_.latent}, {options().seed, numbered("latent", i), steps()})
            .to(options().device);
    {
      const at::AutoGradMode grad(last && !again);
      if (again) {
        const std::vector<at::Tensor> z_parts = z.chunk(options().accumulate);
        const std::vector<at::Tensor> label_parts =
            parts_of(classes, options().accumulate, z_parts.size());
        std::vector<at::Tensor> made;
        for (std::size_t part = 0; part < z_parts.size(); ++part) {
          made.push_back(generate(z_parts[part], label_parts[part]));
        }
        fakes = at::cat(made);
      } else {
        fakes = generate(z, classes);
      }
    }
    const DUpdate done = train_discriminator(reals, fakes.detach(), classes, i);
    if (i == 0) measured = done;  // before the first update; norms are the largest, to find NaN
    norm_d = i == 0 ? done.norm : at::maximum(norm_d, done.norm);
  }

  // Without pairs a logit says on its own what D holds an image for; with them only differences do.
  const bool pairs = needs_pairs(objective_.loss);
  const double border =
      objective_.loss == GanLoss::kLeastSquares ? (1 - options().label_smoothing) / 2 : 0;
  const at::Tensor& real = measured.logits_real;
  const at::Tensor& fake = measured.logits_fake;
  const at::Tensor for_real = pairs ? real - fake : real - border;
  // Where less than half of the images are augmented, the difference that the measures of leaks are
  // relative to is noise, and none is to be expected (Karras et al. 2020).
  if (watches()) watch(reals, fakes, augment_p() >= 0.5 ? augmented(reals, "real") : at::Tensor());
  if (adaptive_) adaptive_->add(for_real);

  set_trainable(*discriminator_, false);
  const at::Tensor loss_g = train_generator(reals, z, again ? at::Tensor() : fakes, classes);
  set_trainable(*discriminator_, true);
  const at::Tensor norm_g = optimizer_g().gradient_norm();
  optimizer_g().step(learning_rate_factor());

  const at::NoGradGuard no_grad;
  const at::Tensor right_real = for_real.gt(0);
  const at::Tensor right_fake = pairs ? right_real : fake.le(border);
  const at::Tensor none =
      at::full({}, std::numeric_limits<float>::quiet_NaN(), at::kFloat).to(options().device);
  const auto value = [&](double number) {
    return at::full({}, number, at::kFloat).to(options().device);
  };
  std::vector<at::Tensor> values{measured.loss_real,
                                 measured.loss_fake,
                                 loss_g,
                                 right_real.to(at::kFloat).mean(),
                                 right_fake.to(at::kFloat).mean(),
                                 norm_d,
                                 norm_d,
                                 norm_g,
                                 for_real.sign().mean(),
                                 pair_accuracy(real, fake)};
  if (objective_.r1 > 0) values.push_back(measured.r1.defined() ? measured.r1 : none);
  if (objective_.r2 > 0) values.push_back(measured.r2.defined() ? measured.r2 : none);
  if (objective_.augments()) values.push_back(value(augment_p()));
  if (grows()) {
    values.push_back(value(growth().resolution));
    values.push_back(value(growth().fade));
  }
  return values;
}

std::vector<std::string> GanTrainer::extra_names() const {
  std::vector<std::string> names;
  if (objective_.r1 > 0) names.emplace_back("r1");
  if (objective_.r2 > 0) names.emplace_back("r2");
  if (objective_.augments()) names.emplace_back("augment_p");
  if (grows()) {
    names.emplace_back("resolution");
    names.emplace_back("fade");
  }
  return names;
}

std::uint64_t GanTrainer::images_before_newest() const {
  return grows() ? objective_.growth.images_before(growth().resolution, config_) : 0;
}

std::map<std::string, at::Tensor> GanTrainer::own_state() const {
  std::map<std::string, at::Tensor> state;
  if (adaptive_) {
    for (const auto& [name, tensor] : adaptive_->state()) state["augment." + name] = tensor;
  }
  if (config_.classes > 0) state["class_counts"] = class_counts_;
  return state;
}

}  // namespace gp
