#include "stages/torch/dcgan_trainer.hpp"

#include <torch/torch.h>

#include "stages/torch/autocast.hpp"
#include "stages/torch/random_tensor.hpp"

namespace gp {
namespace {

/// Cross-entropy of the logits against one label for all.
at::Tensor cross_entropy(const at::Tensor& logits, float target) {
  return at::binary_cross_entropy_with_logits(logits, at::full_like(logits, target));
}

template <class Network>
Network with_weights(Network network, const char* name, std::uint64_t seed) {
  init_weights(*network, name, seed);
  return network;
}

}  // namespace

DcganTrainer::DcganTrainer(const DcganConfig& config, const TrainerOptions& options)
    : DcganTrainer(config, options, with_weights(Generator(config), "G", options.seed),
                   with_weights(Discriminator(config), "D", options.seed)) {}

DcganTrainer::DcganTrainer(const DcganConfig& config, const TrainerOptions& options,
                           Generator generator, Discriminator discriminator)
    : AdversarialTrainer(config, options, generator.ptr(), discriminator.ptr()),
      config_(config),
      generator_(std::move(generator)),
      discriminator_(std::move(discriminator)) {}

DcganTrainer::Pass DcganTrainer::discriminate(const at::Tensor& images, float target,
                                              const std::string& pass) {
  at::Tensor logits;
  {
    const AutocastScope autocast(options().device.type(), options().bf16);
    logits = discriminator_(images, DropoutKey{options().seed, steps(), pass});
  }
  return {cross_entropy(logits, target), logits.detach()};
}

DcganTrainer::Pass DcganTrainer::train_discriminator(const at::Tensor& images, float target,
                                                     const std::string& pass) {
  if (options().accumulate == 1) {
    const Pass whole = discriminate(images, target, pass);
    whole.loss.backward();
    return whole;
  }
  at::Tensor loss;
  std::vector<at::Tensor> logits;
  for (const at::Tensor& part : images.chunk(options().accumulate)) {
    const Pass result = discriminate(part, target, numbered(pass + ".part", logits.size()));
    const at::Tensor share =
        result.loss * (static_cast<double>(part.size(0)) / static_cast<double>(images.size(0)));
    share.backward();
    loss = loss.defined() ? loss + share.detach() : share.detach();
    logits.push_back(result.logits);
  }
  return {loss, at::cat(logits)};
}

at::Tensor DcganTrainer::generate(const at::Tensor& z) {
  const AutocastScope autocast(options().device.type(), options().bf16);
  return generator_(z);
}

at::Tensor DcganTrainer::train_generator(const at::Tensor& z, const at::Tensor& fakes) {
  if (fakes.defined()) {
    const Pass fooled = discriminate(fakes, 1, "generator");
    fooled.loss.backward();
    return fooled.loss.detach();
  }
  // The second pass does not move the running statistics a second time. (They are put back behind
  // it: backward checks that they are as it left them.)
  const KeptBuffers kept(*generator_);
  at::Tensor loss;
  std::size_t number = 0;
  for (const at::Tensor& part : z.chunk(options().accumulate)) {
    const Pass fooled = discriminate(
        generate(part), 1,
        options().accumulate == 1 ? "generator" : numbered("generator.part", number++));
    const at::Tensor share =
        fooled.loss * (static_cast<double>(part.size(0)) / static_cast<double>(z.size(0)));
    share.backward();
    loss = loss.defined() ? loss + share.detach() : share.detach();
  }
  return loss;
}

std::vector<at::Tensor> DcganTrainer::update(const at::Tensor& reals,
                                             const at::Tensor& /*labels*/) {
  const std::int64_t count = reals.size(0);
  const double rate = learning_rate_factor();
  const auto real_target = static_cast<float>(1 - options().label_smoothing);
  // Where G's pass is made anew, that for D needs no graph, and may be made in parts.
  const bool again = config_.exact || options().accumulate > 1;

  Pass real, fake;
  at::Tensor z, fakes, norm_d_real, norm_d_fake;
  for (std::size_t i = 0; i < static_cast<std::size_t>(options().d_steps); ++i) {
    const bool last = i + 1 == static_cast<std::size_t>(options().d_steps);
    z = normal_tensor({count, config_.latent}, {options().seed, numbered("latent", i), steps()})
            .to(options().device);
    {
      const at::AutoGradMode grad(last && !again);
      if (options().accumulate == 1) {
        fakes = generate(z);
      } else {
        std::vector<at::Tensor> parts;
        for (const at::Tensor& part : z.chunk(options().accumulate))
          parts.push_back(generate(part));
        fakes = at::cat(parts);
      }
    }
    const Pass on_real = train_discriminator(reals, real_target, numbered("real", i));
    const at::Tensor norm_real = optimizer_d().gradient_norm();
    optimizer_d().step(rate);
    const Pass on_fake = train_discriminator(fakes.detach(), 0, numbered("fake", i));
    const at::Tensor norm_fake = optimizer_d().gradient_norm();
    optimizer_d().step(rate);
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
  const at::Tensor norm_g = optimizer_g().gradient_norm();
  optimizer_g().step(rate);

  const at::NoGradGuard no_grad;
  if (watches()) watch(reals, fakes, {});
  return {real.loss.detach(),
          fake.loss.detach(),
          loss_g,
          real.logits.gt(0).to(at::kFloat).mean(),
          fake.logits.le(0).to(at::kFloat).mean(),
          norm_d_real,
          norm_d_fake,
          norm_g,
          real.logits.sign().mean(),
          pair_accuracy(real.logits, fake.logits)};
}

}  // namespace gp
