#include "stages/torch/norm_activation.hpp"

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <cmath>
#include <vector>

#include "stages/torch/norm_activation_kernels.hpp"

namespace gp {
namespace {

/// The maps of one tensor, channels_last: where the rows are.
template <class T>
struct Maps {
  T* data;
  std::int64_t images, height, width;
  int channels;
  bool padded;  ///< a row and a column more than height and width say

  std::int64_t row_values() const { return width * channels; }
  T* row(std::int64_t image, std::int64_t y) const {
    const std::int64_t pad = padded ? 1 : 0;
    return data + (image * (height + pad) + y) * (width + pad) * channels;
  }
};

template <class T>
T* data_of(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

/// `like`'s sizes without the padding.
template <class T>
Maps<T> maps_of(const at::Tensor& tensor, const at::Tensor& like) {
  return {data_of<T>(tensor),
          like.size(0),
          like.size(2),
          like.size(3),
          static_cast<int>(like.size(1)),
          tensor.size(2) != like.size(2)};
}

/// Calls `work(image, y)` for all rows; rows of one image on one thread.
template <class Work>
void for_images(const at::Tensor& x, Work work) {
  at::parallel_for(0, x.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t image = begin; image < end; ++image) work(image);
  });
}

/// Sums of two figures a channel: each image's is taken alone, then they are added up in order, so
/// that threads do not matter.
struct ChannelSums {
  ChannelSums(std::int64_t images, int channels)
      : channels_(static_cast<std::size_t>(channels)),
        values_(static_cast<std::size_t>(images) * 2 * channels_) {}
  float* first(std::int64_t image) {
    return values_.data() + static_cast<std::size_t>(image) * 2 * channels_;
  }
  float* second(std::int64_t image) { return first(image) + channels_; }
  /// The total of first (or second) for a channel.
  double total(bool second_figure, std::size_t channel) const {
    double sum = 0;
    for (std::size_t i = channel + (second_figure ? channels_ : 0); i < values_.size();
         i += 2 * channels_) {
      sum += double{values_[i]};
    }
    return sum;
  }

 private:
  std::size_t channels_;
  std::vector<float> values_;
};

/// What forward hands to backward: a figure a channel in each row, float [kRows,C].
enum Row { kScale, kOffset, kMean, kInverseDeviation, kRows };

Kept row_of(const at::Tensor& kept, const at::Tensor& x, std::int64_t image, std::int64_t y) {
  if (!kept.defined()) return nullptr;
  return static_cast<Kept>(kept.const_data_ptr()) + (image * x.size(2) + y) * x.size(3) * x.size(1);
}

struct Settings {
  bool norm;
  double leak;
  double rate;
  bool pad;

  ActivationCoefficients coefficients(const at::Tensor& rows) const {
    const float* data = rows.const_data_ptr<float>();
    return {data + kScale * rows.size(1), data + kOffset * rows.size(1), static_cast<float>(leak)};
  }
};

/// Fills `rows` from the statistics of `x`, and moves the running ones. `keep_scale`: dropout's.
template <class T>
void measure(const at::Tensor& x, const BatchNormState& norm, double keep_scale, at::Tensor& rows) {
  const Maps<T> maps = maps_of<T>(x, x);
  const int channels = maps.channels;
  // Of values around one of them, so that a large mean does not swallow the deviations.
  const at::Tensor first = x.select(0, 0).select(1, 0).select(1, 0).to(at::kFloat).contiguous();
  const float* const shift = first.const_data_ptr<float>();
  ChannelSums sums(maps.images, channels);
  for_images(x, [&](std::int64_t image) {
    for (std::int64_t y = 0; y < maps.height; ++y) {
      add_moments<T>(maps.row(image, y), maps.width, channels, shift, sums.first(image),
                     sums.second(image));
    }
  });
  const auto count = static_cast<double>(maps.images * maps.height * maps.width);
  const float* const weight = norm.weight.const_data_ptr<float>();
  const float* const bias = norm.bias.const_data_ptr<float>();
  const float* const input_bias =
      norm.input_bias.defined() ? norm.input_bias.const_data_ptr<float>() : nullptr;
  float* const running_mean = norm.running_mean.data_ptr<float>();
  float* const running_var = norm.running_var.data_ptr<float>();
  float* const out = rows.data_ptr<float>();
  for (int c = 0; c < channels; ++c) {
    const auto at = static_cast<std::size_t>(c);
    const double around = sums.total(false, at) / count;
    const double mean = around + double{shift[c]};
    const double variance = std::max(sums.total(true, at) / count - around * around, 0.0);
    const double inverse_deviation = 1 / std::sqrt(variance + norm.eps);
    const double scale = keep_scale * double{weight[c]} * inverse_deviation;
    out[kScale * channels + c] = static_cast<float>(scale);
    out[kOffset * channels + c] = static_cast<float>(keep_scale * double{bias[c]} - scale * mean);
    out[kMean * channels + c] = static_cast<float>(mean);
    out[kInverseDeviation * channels + c] = static_cast<float>(inverse_deviation);
    const double unbiased = variance * count / std::max(count - 1, 1.0);
    const double shifted = mean + (input_bias != nullptr ? double{input_bias[c]} : 0);
    running_mean[c] += static_cast<float>(norm.momentum * (shifted - double{running_mean[c]}));
    running_var[c] += static_cast<float>(norm.momentum * (unbiased - double{running_var[c]}));
  }
}

template <class T>
void forward(const at::Tensor& x, const at::Tensor& rows, const at::Tensor& kept,
             const Settings& settings, at::Tensor& y) {
  const Maps<T> in = maps_of<T>(x, x);
  const Maps<T> out = maps_of<T>(y, x);
  const ActivationCoefficients coefficients = settings.coefficients(rows);
  for_images(x, [&](std::int64_t image) {
    for (std::int64_t row = 0; row < in.height; ++row) {
      T* const to = out.row(image, row);
      activate<T>(in.row(image, row), row_of(kept, x, image, row), in.width, in.channels,
                  coefficients, to);
      if (settings.pad) std::fill_n(to + in.row_values(), in.channels, T{});
    }
    if (settings.pad) {
      std::fill_n(out.row(image, in.height), in.row_values() + in.channels, T{});
    }
  });
}

/// dx; also the gradients of batch norm's weight and bias.
template <class T>
void backward(const at::Tensor& x, const at::Tensor& dy, const at::Tensor& rows,
              const at::Tensor& kept, const Settings& settings, at::Tensor& dx, at::Tensor& dweight,
              at::Tensor& dbias) {
  const Maps<T> in = maps_of<T>(x, x);
  const Maps<T> gradient = maps_of<T>(dy, x);
  const Maps<T> out = maps_of<T>(dx, x);
  const int channels = in.channels;
  const ActivationCoefficients coefficients = settings.coefficients(rows);
  const double keep_scale = settings.rate > 0 ? dropout_keep_scale(settings.rate) : 1;
  const auto size = static_cast<std::size_t>(channels);
  std::vector<float> of_input(size), constant(size);
  if (settings.norm) {
    const float* const mean = rows.const_data_ptr<float>() + kMean * channels;
    ChannelSums sums(in.images, channels);
    for_images(x, [&](std::int64_t image) {
      for (std::int64_t y = 0; y < in.height; ++y) {
        add_gradient_moments<T>(in.row(image, y), gradient.row(image, y), row_of(kept, x, image, y),
                                in.width, channels, coefficients, mean, sums.first(image),
                                sums.second(image));
      }
    });
    const auto count = static_cast<double>(in.images * in.height * in.width);
    for (std::size_t c = 0; c < size; ++c) {
      const double sum = sums.total(false, c);
      const double product = sums.total(true, c);
      const auto inverse_deviation =
          static_cast<double>(rows.const_data_ptr<float>()[kInverseDeviation * size + c]);
      const auto scale = static_cast<double>(coefficients.scale[c]);
      dbias.data_ptr<float>()[c] = static_cast<float>(keep_scale * sum);
      dweight.data_ptr<float>()[c] = static_cast<float>(keep_scale * product * inverse_deviation);
      // dx = scale (dz - mean(dz) - (x - mean) / deviation^2 mean(dz (x - mean)))
      const double slope = -scale * inverse_deviation * inverse_deviation * product / count;
      of_input[c] = static_cast<float>(slope);
      constant[c] = static_cast<float>(-scale * sum / count - slope * double{mean[c]});
    }
  }
  const GradientCoefficients gradients{coefficients.scale, of_input.data(), constant.data()};
  for_images(x, [&](std::int64_t image) {
    for (std::int64_t y = 0; y < in.height; ++y) {
      activate_backward<T>(in.row(image, y), gradient.row(image, y), row_of(kept, x, image, y),
                           in.width, channels, coefficients, gradients, out.row(image, y));
    }
  });
}

/// weight, bias and input_bias are those of `norm`, given once more so that autograd sees them.
class NormActivation : public torch::autograd::Function<NormActivation> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& input,
                            const std::optional<at::Tensor>& /*weight*/,
                            const std::optional<at::Tensor>& /*bias*/,
                            const std::optional<at::Tensor>& input_bias,
                            const std::optional<BatchNormState>& norm, double leak,
                            const std::optional<Dropout>& dropout, bool pad) {
    RECORD_FUNCTION("norm_activation", std::vector<c10::IValue>{input});
    const at::Tensor x = input.contiguous(at::MemoryFormat::ChannelsLast);
    const Settings settings{norm.has_value(), leak, dropout ? dropout->rate : 0, pad};
    at::Tensor rows = at::empty({kRows, x.size(1)}, at::kFloat);
    const double keep_scale = dropout ? dropout_keep_scale(dropout->rate) : 1;
    rows[kScale].fill_(keep_scale);
    rows[kOffset].zero_();
    at::Tensor kept;
    if (dropout) kept = dropout_kept(x.numel(), dropout->rate, dropout->key);
    at::Tensor y = at::empty({x.size(0), x.size(1), x.size(2) + pad, x.size(3) + pad},
                             x.options().memory_format(at::MemoryFormat::ChannelsLast));
    if (x.scalar_type() == at::kFloat) {
      if (norm) measure<float>(x, *norm, keep_scale, rows);
      gp::forward<float>(x, rows, kept, settings, y);
    } else {
      if (norm) measure<BF16>(x, *norm, keep_scale, rows);
      gp::forward<BF16>(x, rows, kept, settings, y);
    }
    context->save_for_backward({x, rows, kept});
    context->saved_data["input_bias"] = input_bias.has_value();
    context->saved_data["norm"] = settings.norm;
    context->saved_data["leak"] = settings.leak;
    context->saved_data["rate"] = settings.rate;
    context->saved_data["pad"] = settings.pad;
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    RECORD_FUNCTION("norm_activation_backward", std::vector<c10::IValue>{gradients[0]});
    const auto saved = context->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& rows = saved[1];
    const at::Tensor& kept = saved[2];
    const Settings settings{
        context->saved_data["norm"].toBool(), context->saved_data["leak"].toDouble(),
        context->saved_data["rate"].toDouble(), context->saved_data["pad"].toBool()};
    const at::Tensor dy =
        gradients[0].to(x.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor dx = at::empty_like(x);
    at::Tensor dweight, dbias;
    if (settings.norm) {
      dweight = at::empty({x.size(1)}, at::kFloat);
      dbias = at::empty({x.size(1)}, at::kFloat);
    }
    if (x.scalar_type() == at::kFloat) {
      gp::backward<float>(x, dy, rows, kept, settings, dx, dweight, dbias);
    } else {
      gp::backward<BF16>(x, dy, rows, kept, settings, dx, dweight, dbias);
    }
    at::Tensor dinput_bias;
    if (context->saved_data["input_bias"].toBool())
      dinput_bias = at::zeros({x.size(1)}, at::kFloat);
    return {dx, dweight, dbias, dinput_bias, {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor norm_activation(const at::Tensor& x, const std::optional<BatchNormState>& norm,
                           double leak, const std::optional<Dropout>& dropout, bool pad,
                           bool plain) {
  const bool known = x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
  const std::optional<Dropout> dropped = dropout && dropout->rate > 0 ? dropout : std::nullopt;
  if (!plain && known && x.is_cpu() && x.numel() > 0) {
    std::optional<at::Tensor> weight, bias, input_bias;
    if (norm) {
      weight = norm->weight;
      bias = norm->bias;
      if (norm->input_bias.defined()) input_bias = norm->input_bias;
    }
    return NormActivation::apply(x, weight, bias, input_bias, norm, leak, dropped, pad);
  }
  at::Tensor y = x;
  if (norm) {
    if (norm->input_bias.defined()) y = y + norm->input_bias.view({-1, 1, 1}).to(y.scalar_type());
    y = at::batch_norm(y, norm->weight, norm->bias, norm->running_mean, norm->running_var,
                       /*training=*/true, norm->momentum, norm->eps, /*cudnn_enabled=*/true);
  }
  y = leak == 0 ? at::relu(y) : at::leaky_relu(y, leak);
  if (dropped) y = y * dropout_mask(y, dropped->rate, dropped->key);
  return pad ? at::constant_pad_nd(y, {0, 1, 0, 1}) : y;
}

}  // namespace gp
