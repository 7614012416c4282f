#include "stages/torch/gan_trainer.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "stages/torch/autocast.hpp"
#include "stages/torch/checkpoint.hpp"
#include "stages/torch/random_tensor.hpp"

namespace gp {
namespace {

void set_trainable(torch::nn::Module& network, bool trainable) {
  for (at::Tensor& parameter : network.parameters()) parameter.set_requires_grad(trainable);
}

/// Cross-entropy of the logits against one label for all.
at::Tensor cross_entropy(const at::Tensor& logits, float target) {
  return at::binary_cross_entropy_with_logits(logits, at::full_like(logits, target));
}

}  // namespace

bool GanStep::finite() const {
  return std::isfinite(loss_d_real) && std::isfinite(loss_d_fake) && std::isfinite(loss_g) &&
         std::isfinite(gradient_norm_d_real) && std::isfinite(gradient_norm_d_fake) &&
         std::isfinite(gradient_norm_g);
}

std::map<std::string, at::Tensor> state_of(const torch::nn::Module& network) {
  std::map<std::string, at::Tensor> state;
  for (const auto& parameter : network.named_parameters()) {
    state[parameter.key()] = parameter.value();
  }
  for (const auto& buffer : network.named_buffers()) state[buffer.key()] = buffer.value();
  return state;
}

void copy_state(const torch::nn::Module& from, torch::nn::Module& to) {
  const at::NoGradGuard no_grad;
  auto target = state_of(to);
  for (const auto& [name, tensor] : state_of(from)) target.at(name).copy_(tensor);
}

GanTrainer::GanTrainer(const DcganConfig& config, const GanTrainerOptions& options)
    : config_(config), options_(options), generator_(config), discriminator_(config) {
  init_weights(*generator_, "G", options.seed);
  init_weights(*discriminator_, "D", options.seed);
  generator_->to(options.device);
  discriminator_->to(options.device);
  if (options.ema > 0) {
    average_ = Generator(config);
    average_->to(options.device);
    copy_state(*generator_, *average_);
    set_trainable(*average_, false);
    average_->eval();
  }
  optimizer_g_ = std::make_unique<Adam>(
      *generator_,
      Adam::Options{options.learning_rate, options.beta1, options.beta2, Adam::Options{}.epsilon});
  optimizer_d_ = std::make_unique<Adam>(
      *discriminator_, Adam::Options{options.learning_rate_d, options.beta1, options.beta2,
                                     Adam::Options{}.epsilon});
}

GanTrainer::~GanTrainer() = default;

GanTrainer::Pass GanTrainer::discriminate(const at::Tensor& images, float target,
                                          const std::string& pass) {
  at::Tensor logits;
  {
    const AutocastScope autocast(options_.device.type(), options_.bf16);
    logits = discriminator_(images, DropoutKey{options_.seed, steps_, pass});
  }
  return {cross_entropy(logits, target), logits.detach()};
}

at::Tensor GanTrainer::generate(const at::Tensor& z) {
  const AutocastScope autocast(options_.device.type(), options_.bf16);
  return generator_(z);
}

GanStep GanTrainer::step(const at::Tensor& pixels) {
  if (options_.undoable) keep_state();
  const at::Tensor reals = to_signed(pixels.to(options_.device));
  const std::int64_t count = reals.size(0);
  const at::Tensor z =
      normal_tensor({count, config_.latent}, {options_.seed, "latent", steps_}).to(options_.device);
  at::Tensor fakes = generate(z);

  const Pass real = discriminate(reals, static_cast<float>(1 - options_.label_smoothing), "real");
  real.loss.backward();
  const at::Tensor norm_d_real = optimizer_d_->gradient_norm();
  optimizer_d_->step();

  const Pass fake = discriminate(fakes.detach(), 0, "fake");
  fake.loss.backward();
  const at::Tensor norm_d_fake = optimizer_d_->gradient_norm();
  optimizer_d_->step();

  std::vector<at::Tensor> statistics;
  if (config_.exact) {
    for (const at::Tensor& buffer : generator_->buffers()) statistics.push_back(buffer.clone());
    fakes = generate(z);
  }
  set_trainable(*discriminator_, false);
  const Pass fooled = discriminate(fakes, 1, "generator");
  fooled.loss.backward();
  // The second pass does not move the running statistics a second time. (Not before: backward
  // checks that they are as it left them.)
  const std::vector<at::Tensor> buffers = generator_->buffers();
  for (std::size_t i = 0; i < statistics.size(); ++i) buffers[i].copy_(statistics[i]);
  set_trainable(*discriminator_, true);
  const at::Tensor norm_g = optimizer_g_->gradient_norm();
  optimizer_g_->step();
  if (average_) update_average();

  ++steps_;
  images_ += static_cast<std::uint64_t>(count);

  const at::NoGradGuard no_grad;
  const at::Tensor values =
      at::stack({real.loss, fake.loss, fooled.loss, real.logits.gt(0).to(at::kFloat).mean(),
                 fake.logits.le(0).to(at::kFloat).mean(), norm_d_real, norm_d_fake, norm_g})
          .cpu();  // one transfer
  const float* const value = values.const_data_ptr<float>();
  return {value[0], value[1], value[2], value[3], value[4], value[5], value[6], value[7]};
}

void GanTrainer::update_average() {
  const at::NoGradGuard no_grad;
  // A fresh average follows closely, or it would remember the random start for 1 / (1 - decay)
  // steps.
  const auto t = static_cast<double>(steps_);
  const double decay = std::min(options_.ema, (1 + t) / (10 + t));
  auto average = state_of(*average_);
  for (const auto& [name, tensor] : state_of(*generator_)) {
    average.at(name).lerp_(tensor, 1 - decay);
  }
}

std::map<std::string, at::Tensor> GanTrainer::state() const {
  std::map<std::string, at::Tensor> all;
  const auto add = [&](const std::string& prefix, const std::map<std::string, at::Tensor>& part) {
    for (const auto& [name, tensor] : part) all[prefix + "." + name] = tensor;
  };
  add("G", state_of(*generator_));
  add("D", state_of(*discriminator_));
  if (average_) add("EMA", state_of(*average_));
  add("optimizer_G", optimizer_g_->state());
  add("optimizer_D", optimizer_d_->state());
  return all;
}

void GanTrainer::keep_state() {
  if (!before_) before_ = std::make_unique<Checkpoint>();
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

void GanTrainer::undo() {
  TORCH_CHECK(before_, "GanTrainer::undo without an undoable step");
  load_state(*before_);
}

void GanTrainer::load_state(const Checkpoint& checkpoint) {
  const std::string where = checkpoint.file.string();
  gp::load_state(*generator_, checkpoint, "G", where);
  gp::load_state(*discriminator_, checkpoint, "D", where);
  if (average_) gp::load_state(*average_, checkpoint, "EMA", where);
  const auto load_optimizer = [&](Adam& optimizer, const std::string& name) {
    const std::map<std::string, at::Tensor> state = optimizer.state();
    gp::load_state(state, checkpoint, name, where);
    optimizer.set_steps(state.at("step").item<std::int64_t>());
  };
  load_optimizer(*optimizer_g_, "optimizer_G");
  load_optimizer(*optimizer_d_, "optimizer_D");
}

}  // namespace gp
