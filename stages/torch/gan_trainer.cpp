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

/// "real", "real.1", "real.2" ..: what random numbers are for.
std::string numbered(std::string name, std::size_t number) {
  if (number > 0) name.append(".").append(std::to_string(number));
  return name;
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
  if (options.ema > 0 || options.ema_half_life > 0) {
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

GanTrainer::Pass GanTrainer::train_discriminator(const at::Tensor& images, float target,
                                                 const std::string& pass) {
  if (options_.accumulate == 1) {
    const Pass whole = discriminate(images, target, pass);
    whole.loss.backward();
    return whole;
  }
  at::Tensor loss;
  std::vector<at::Tensor> logits;
  for (const at::Tensor& part : images.chunk(options_.accumulate)) {
    const Pass result = discriminate(part, target, numbered(pass + ".part", logits.size()));
    const at::Tensor share =
        result.loss * (static_cast<double>(part.size(0)) / static_cast<double>(images.size(0)));
    share.backward();
    loss = loss.defined() ? loss + share.detach() : share.detach();
    logits.push_back(result.logits);
  }
  return {loss, at::cat(logits)};
}

at::Tensor GanTrainer::generate(const at::Tensor& z) {
  const AutocastScope autocast(options_.device.type(), options_.bf16);
  return generator_(z);
}

at::Tensor GanTrainer::train_generator(const at::Tensor& z, const at::Tensor& fakes) {
  if (fakes.defined()) {
    const Pass fooled = discriminate(fakes, 1, "generator");
    fooled.loss.backward();
    return fooled.loss.detach();
  }
  // The second pass does not move the running statistics a second time. (They are put back behind
  // it: backward checks that they are as it left them.)
  const std::vector<at::Tensor> buffers = generator_->buffers();
  std::vector<at::Tensor> statistics;
  for (const at::Tensor& buffer : buffers) statistics.push_back(buffer.clone());
  at::Tensor loss;
  std::size_t number = 0;
  for (const at::Tensor& part : z.chunk(options_.accumulate)) {
    const Pass fooled =
        discriminate(generate(part), 1,
                     options_.accumulate == 1 ? "generator" : numbered("generator.part", number++));
    const at::Tensor share =
        fooled.loss * (static_cast<double>(part.size(0)) / static_cast<double>(z.size(0)));
    share.backward();
    loss = loss.defined() ? loss + share.detach() : share.detach();
  }
  for (std::size_t i = 0; i < buffers.size(); ++i) buffers[i].copy_(statistics[i]);
  return loss;
}

GanStep GanTrainer::step(const at::Tensor& pixels) {
  if (options_.undoable) keep_state();
  const at::Tensor reals = to_signed(pixels.to(options_.device));
  const std::int64_t count = reals.size(0);
  const double rate = options_.schedule.factor(steps_);
  const auto real_target = static_cast<float>(1 - options_.label_smoothing);
  // Where G's pass is made anew, that for D needs no graph, and may be made in parts.
  const bool again = config_.exact || options_.accumulate > 1;

  Pass real, fake;
  at::Tensor z, fakes, norm_d_real, norm_d_fake;
  for (std::size_t i = 0; i < static_cast<std::size_t>(options_.d_steps); ++i) {
    const bool last = i + 1 == static_cast<std::size_t>(options_.d_steps);
    z = normal_tensor({count, config_.latent}, {options_.seed, numbered("latent", i), steps_})
            .to(options_.device);
    {
      const at::AutoGradMode grad(last && !again);
      if (options_.accumulate == 1) {
        fakes = generate(z);
      } else {
        std::vector<at::Tensor> parts;
        for (const at::Tensor& part : z.chunk(options_.accumulate)) parts.push_back(generate(part));
        fakes = at::cat(parts);
      }
    }
    const Pass on_real = train_discriminator(reals, real_target, numbered("real", i));
    const at::Tensor norm_real = optimizer_d_->gradient_norm();
    optimizer_d_->step(rate);
    const Pass on_fake = train_discriminator(fakes.detach(), 0, numbered("fake", i));
    const at::Tensor norm_fake = optimizer_d_->gradient_norm();
    optimizer_d_->step(rate);
    if (i == 0) {  // measured before the first update; norms are the largest, to find NaN in any
      real = on_real;
      fake = on_fake;
      norm_d_real = norm_real;
      norm_d_fake = norm_fake;
    } else {
      norm_d_real = at::maximum(norm_d_real, norm_real);
      norm_d_fake = at::maximum(norm_d_fake, norm_fake);
    }
  }

  set_trainable(*discriminator_, false);
  const at::Tensor loss_g = train_generator(z, again ? at::Tensor() : fakes);
  set_trainable(*discriminator_, true);
  const at::Tensor norm_g = optimizer_g_->gradient_norm();
  optimizer_g_->step(rate);
  images_ += static_cast<std::uint64_t>(count);
  if (average_) update_average(count);
  ++steps_;

  const at::NoGradGuard no_grad;
  const at::Tensor values =
      at::stack({real.loss, fake.loss, loss_g, real.logits.gt(0).to(at::kFloat).mean(),
                 fake.logits.le(0).to(at::kFloat).mean(), norm_d_real, norm_d_fake, norm_g})
          .cpu();  // one transfer
  const float* const value = values.const_data_ptr<float>();
  return {value[0], value[1], value[2], value[3], value[4], value[5], value[6], value[7]};
}

void GanTrainer::update_average(std::int64_t count) {
  const at::NoGradGuard no_grad;
  double decay = 0;
  if (options_.ema_half_life > 0) {
    double half_life = options_.ema_half_life;
    const auto seen = static_cast<double>(images_);
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
