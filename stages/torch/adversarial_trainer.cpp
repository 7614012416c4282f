#include "stages/torch/adversarial_trainer.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "stages/torch/checkpoint.hpp"
#include "stages/torch/image_statistics.hpp"

namespace gp {

bool GanStep::finite() const {
  return std::isfinite(loss_d_real) && std::isfinite(loss_d_fake) && std::isfinite(loss_g) &&
         std::isfinite(gradient_norm_d_real) && std::isfinite(gradient_norm_d_fake) &&
         std::isfinite(gradient_norm_g);
}

void set_trainable(torch::nn::Module& network, bool trainable) {
  for (at::Tensor& parameter : network.parameters()) parameter.set_requires_grad(trainable);
}

std::string numbered(std::string name, std::size_t number) {
  if (number > 0) name.append(".").append(std::to_string(number));
  return name;
}

at::Tensor pair_accuracy(const at::Tensor& logits_real, const at::Tensor& logits_fake) {
  return ((logits_real.unsqueeze(1) - logits_fake).sign().mean() + 1) / 2;
}

AdversarialTrainer::AdversarialTrainer(const ModelConfig& model, const TrainerOptions& options,
                                       std::shared_ptr<GeneratorNetwork> generator,
                                       std::shared_ptr<DiscriminatorNetwork> discriminator)
    : model_(model),
      options_(options),
      generator_(std::move(generator)),
      discriminator_(std::move(discriminator)) {
  generator_->to(options.device);
  discriminator_->to(options.device);
  if (options.ema > 0 || options.ema_half_life > 0) {
    average_ = make_generator(model);
    average_->to(options.device);
    copy_state(*generator_, *average_);
    set_trainable(*average_, false);
    average_->eval();
  }
  const auto adam = [&](torch::nn::Module& network, double learning_rate) {
    return std::make_unique<Adam>(network, Adam::Options{learning_rate, options.beta1,
                                                         options.beta2, Adam::Options{}.epsilon});
  };
  optimizer_g_ = adam(*generator_, options.learning_rate);
  optimizer_d_ = adam(*discriminator_, options.learning_rate_d);
}

AdversarialTrainer::~AdversarialTrainer() = default;

at::Tensor AdversarialTrainer::start_step(const at::Tensor& pixels, const at::Tensor& labels) {
  if (options_.undoable) keep_state();
  const at::Tensor reals = to_signed(pixels.to(options_.device));
  watched_.fill(std::numeric_limits<double>::quiet_NaN());
  std::vector<at::Tensor> values = update(reals, labels);
  for (const double value : watched_) {
    values.push_back(at::full({}, value, values.front().options().requires_grad(false)));
  }
  images_ += static_cast<std::uint64_t>(reals.size(0));
  if (average_) update_average(reals.size(0));
  ++steps_;
  const at::NoGradGuard no_grad;
  return at::stack(values);
}

GanStep AdversarialTrainer::measured(const at::Tensor& values) const {
  const at::Tensor read = values.cpu();  // one transfer
  const float* value = read.const_data_ptr<float>();
  GanStep step{value[0], value[1], value[2], value[3], value[4], value[5], value[6], value[7]};
  step.extras = {{"sign_real", value[8]},
                 {"pair_accuracy", value[9]},
                 {"gradient_norm_d", std::max(value[5], value[6])},
                 {"gradient_norm_g", value[7]}};
  value += 10;
  for (const std::string& name : extra_names()) step.extras.emplace_back(name, *value++);
  for (const char* name : {"diversity", "leak_colour", "leak_translation", "leak_cutout"}) {
    step.extras.emplace_back(name, *value++);
  }
  return step;
}

void AdversarialTrainer::watch(const at::Tensor& reals, const at::Tensor& fakes,
                               const at::Tensor& augmented) {
  const at::NoGradGuard no_grad;
  const ImageStatistics of_reals = image_statistics(reals);
  const ImageStatistics of_fakes = image_statistics(fakes);
  watched_[0] = diversity_of(of_fakes, of_reals);
  if (!augmented.defined()) return;
  const LeakMeasures leaks = leaks_of(of_fakes, of_reals, image_statistics(augmented));
  watched_[1] = leaks.colour;
  watched_[2] = leaks.translation;
  watched_[3] = leaks.cutout;
}

void AdversarialTrainer::set_growth(const GrowthPoint& point) {
  growth_ = point;
  generator_->set_growth(point);
  discriminator_->set_growth(point);
  if (average_) average_->set_growth(point);
}

void AdversarialTrainer::update_average(std::int64_t count) {
  const at::NoGradGuard no_grad;
  double decay = 0;
  if (options_.ema_half_life > 0) {
    double half_life = options_.ema_half_life;
    const auto seen = static_cast<double>(images_ - images_before_newest());
    if (options_.ema_ramp_up > 0) half_life = std::min(half_life, options_.ema_ramp_up * seen);
    decay = half_life > 0 ? std::pow(0.5, static_cast<double>(count) / half_life) : 0;
  } else {
    // A fresh average follows closely, or it would remember the random start for 1 / (1 - decay)
    // steps.
    const auto t = static_cast<double>(steps_);
    decay = std::min(options_.ema, (1 + t) / (10 + t));
  }
  auto average = state_of(*average_);
  for (const auto& [name, tensor] : state_of(*generator_)) {
    average.at(name).lerp_(tensor, 1 - decay);
  }
}

std::map<std::string, at::Tensor> AdversarialTrainer::state() const {
  std::map<std::string, at::Tensor> all;
  const auto add = [&](const std::string& prefix, const std::map<std::string, at::Tensor>& part) {
    for (const auto& [name, tensor] : part) all[prefix + "." + name] = tensor;
  };
  add("G", state_of(*generator_));
  add("D", state_of(*discriminator_));
  if (average_) add("EMA", state_of(*average_));
  add("optimizer_G", optimizer_g_->state());
  add("optimizer_D", optimizer_d_->state());
  add("trainer", own_state());
  return all;
}

void AdversarialTrainer::keep_state() {
  if (!before_) before_ = std::make_unique<Checkpoint>();
  before_->info.growth = growth_;
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : state()) {
    at::Tensor& kept = before_->tensors[name];
    if (kept.defined()) {
      kept.copy_(tensor);
    } else {
      kept = tensor.detach().clone();
    }
  }
}

void AdversarialTrainer::undo() {
  TORCH_CHECK(before_, "AdversarialTrainer::undo without an undoable step");
  load_state(*before_);
}

void AdversarialTrainer::load_state(const Checkpoint& checkpoint) {
  const std::string where = checkpoint.file.string();
  gp::load_state(*generator_, checkpoint, "G", where);
  gp::load_state(*discriminator_, checkpoint, "D", where);
  if (average_) gp::load_state(*average_, checkpoint, "EMA", where);
  gp::load_state(optimizer_g_->state(), checkpoint, "optimizer_G", where);
  gp::load_state(optimizer_d_->state(), checkpoint, "optimizer_D", where);
  gp::load_state(own_state(), checkpoint, "trainer", where);
  if (checkpoint.info.growth.resolution > 0) set_growth(checkpoint.info.growth);
}

}  // namespace gp
