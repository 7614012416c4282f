#include "stages/torch/diff_augment.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <torch/torch.h>

#include <algorithm>
#include <vector>

#include "pipeline/rng.hpp"
#include "stages/torch/target_clones.hpp"

namespace gp {
namespace {

constexpr std::int64_t kColours = 3;

/// The columns of what is drawn, one row an image. All are whole numbers but the first four.
///
/// Brightness, saturation and contrast, one after the other, come to
/// y = gain x + grey (mean of the pixel's colours) + flat (mean of the image) + offset.
/// Then y(row, column) comes from (row + down, column + right), and the cut rectangle is zeroed.
enum Column { kGain, kGrey, kFlat, kOffset, kDown, kRight, kTop, kBottom, kLeft, kEnd, kColumns };

at::Tensor draw(std::int64_t count, std::int64_t height, std::int64_t width,
                const AugmentPolicy& policy, double p, const RandomKey& key) {
  const at::Tensor draws = at::zeros({count, kColumns}, at::kFloat);
  const std::uint64_t colour = hash64(key.purpose + ".colour");
  const std::uint64_t translation = hash64(key.purpose + ".translation");
  const std::uint64_t cutout = hash64(key.purpose + ".cutout");
  for (std::int64_t image = 0; image < count; ++image) {
    float* const row = draws.data_ptr<float>() + image * kColumns;
    const auto stream = [&](std::uint64_t purpose) {
      return Rng(key.seed, purpose, static_cast<std::uint32_t>(image), key.step);
    };
    row[kGain] = 1;
    if (policy.colour) {
      Rng rng = stream(colour);
      double brightness = 0;
      double saturation = 1;
      double contrast = 1;
      // Drawn always, used with probability p.
      const auto maybe = [&](double& value, double low, double high) {
        const bool use = rng.uniform() < p;
        const double drawn = rng.uniform(low, high);
        if (use) value = drawn;
      };
      maybe(brightness, -0.5, 0.5);
      maybe(saturation, 0, 2);
      maybe(contrast, 0.5, 1.5);
      row[kGain] = static_cast<float>(contrast * saturation);
      row[kGrey] = static_cast<float>(contrast * (1 - saturation));
      row[kFlat] = static_cast<float>(1 - contrast);
      row[kOffset] = static_cast<float>(brightness);
    }
    if (policy.translation) {
      Rng rng = stream(translation);
      if (rng.uniform() < p) {
        const auto shift = [&](std::int64_t side) {
          const std::int64_t most = side / 8;
          return static_cast<float>(
              static_cast<std::int64_t>(rng.below(static_cast<std::uint32_t>(2 * most + 1))) -
              most);
        };
        row[kDown] = shift(height);
        row[kRight] = shift(width);
      }
    }
    if (policy.cutout) {
      Rng rng = stream(cutout);
      if (rng.uniform() < p) {
        const auto cut = [&](std::int64_t side, float& from, float& to) {
          const std::int64_t size = side / 2;
          const std::int64_t first = static_cast<std::int64_t>(rng.below(
                                         static_cast<std::uint32_t>(side + 1 - size % 2))) -
                                     size / 2;
          from = static_cast<float>(std::max<std::int64_t>(first, 0));
          to = static_cast<float>(std::min(first + size, side));
        };
        cut(height, row[kTop], row[kBottom]);
        cut(width, row[kLeft], row[kEnd]);
      }
    }
  }
  return draws;
}

/// One image's row of draws, and the image's size.
struct Change {
  float gain, grey, flat, offset;
  std::int64_t down, right, top, bottom, left, end;
  std::int64_t height, width;

  Change(const float* row, std::int64_t h, std::int64_t w)
      : gain(row[kGain]),
        grey(row[kGrey]),
        flat(row[kFlat]),
        offset(row[kOffset]),
        down(static_cast<std::int64_t>(row[kDown])),
        right(static_cast<std::int64_t>(row[kRight])),
        top(static_cast<std::int64_t>(row[kTop])),
        bottom(static_cast<std::int64_t>(row[kBottom])),
        left(static_cast<std::int64_t>(row[kLeft])),
        end(static_cast<std::int64_t>(row[kEnd])),
        height(h),
        width(w) {}
  /// Columns of the result that come from inside the image.
  std::int64_t first_column() const { return std::max<std::int64_t>(0, -right); }
  std::int64_t last_column() const { return std::min(width, width - right); }
  bool cut_row(std::int64_t row) const { return row >= top && row < bottom; }
};

/// The colour map of one row of pixels; `constant` is all that does not depend on the pixel.
GP_CLONES void colour_row(const float* __restrict in, std::int64_t width, float gain, float grey,
                          float constant, float* __restrict out) {
  for (std::int64_t x = 0; x < width; ++x) {
    const float* const pixel = in + kColours * x;
    const float common = grey * ((pixel[0] + pixel[1] + pixel[2]) / 3) + constant;
    for (int c = 0; c < kColours; ++c) out[kColours * x + c] = gain * pixel[c] + common;
  }
}

template <class T>
void load(const T* in, std::int64_t count, float* out) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(in[i]);
}
template <class T>
void store(const float* in, std::int64_t count, T* out) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<T>(in[i]);
}

/// Its own order of summation: rows in eight parallel sums, so that it does not depend on threads.
double sum_row(const float* row, std::int64_t count) {
  float sums[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int k = 0; k < 8; ++k) sums[k] += row[i + k];
  }
  for (; i < count; ++i) sums[i % 8] += row[i];
  double sum = 0;
  for (const float each : sums) sum += each;
  return sum;
}

template <class T>
void forward_image(const T* in, const Change& change, bool add_offset, T* out) {
  const std::int64_t row_size = kColours * change.width;
  std::vector<float> from(static_cast<std::size_t>(row_size));
  std::vector<float> to(static_cast<std::size_t>(row_size));
  float constant = add_offset ? change.offset : 0;
  if (change.flat != 0) {
    double sum = 0;
    for (std::int64_t y = 0; y < change.height; ++y) {
      load(in + y * row_size, row_size, from.data());
      sum += sum_row(from.data(), row_size);
    }
    constant +=
        change.flat * static_cast<float>(sum / static_cast<double>(row_size * change.height));
  }
  const std::int64_t first = change.first_column();
  const std::int64_t last = change.last_column();
  for (std::int64_t y = 0; y < change.height; ++y) {
    T* const row = out + y * row_size;
    const std::int64_t source = y + change.down;
    if (source < 0 || source >= change.height) {
      std::fill_n(row, row_size, T(0.0F));
      continue;
    }
    const std::int64_t count = last - first;
    load(in + source * row_size + kColours * (first + change.right), kColours * count, from.data());
    colour_row(from.data(), count, change.gain, change.grey, constant, to.data());
    store(to.data(), kColours * count, row + kColours * first);
    std::fill(row, row + kColours * first, T(0.0F));
    std::fill(row + kColours * last, row + row_size, T(0.0F));
    if (change.cut_row(y))
      std::fill(row + kColours * change.left, row + kColours * change.end, T(0.0F));
  }
}

/// The transposed map: cut, move back, colour (which is symmetric).
template <class T>
void transposed_image(const T* in, const Change& change, T* out) {
  const std::int64_t row_size = kColours * change.width;
  std::vector<float> from(static_cast<std::size_t>(row_size));
  std::vector<float> to(static_cast<std::size_t>(row_size));
  const std::int64_t first = change.first_column();
  const std::int64_t last = change.last_column();
  // Row `source` of the image before it was moved and cut; false where nothing of it is left.
  const auto load_row = [&](std::int64_t source) {
    const std::int64_t y = source - change.down;
    if (y < 0 || y >= change.height) return false;
    std::fill(from.begin(), from.end(), 0.0F);
    float* const begin = from.data() + kColours * (first + change.right);
    load(in + y * row_size + kColours * first, kColours * (last - first), begin);
    if (change.cut_row(y)) {
      const std::int64_t left = std::clamp(change.left, first, last);
      const std::int64_t end = std::clamp(change.end, first, last);
      std::fill(begin + kColours * (left - first), begin + kColours * (end - first), 0.0F);
    }
    return true;
  };
  float constant = 0;
  if (change.flat != 0) {
    double sum = 0;
    for (std::int64_t y = 0; y < change.height; ++y) {
      if (load_row(y)) sum += sum_row(from.data(), row_size);
    }
    constant =
        change.flat * static_cast<float>(sum / static_cast<double>(row_size * change.height));
  }
  for (std::int64_t y = 0; y < change.height; ++y) {
    T* const row = out + y * row_size;
    if (!load_row(y)) {
      std::fill_n(row, row_size, T(constant));
      continue;
    }
    colour_row(from.data(), change.width, change.gain, change.grey, constant, to.data());
    store(to.data(), row_size, row);
  }
}

enum class Map { kAffine, kLinear, kTransposed };

template <class T>
void map_images(const at::Tensor& images, const at::Tensor& draws, Map map, at::Tensor& out) {
  const std::int64_t height = images.size(2);
  const std::int64_t width = images.size(3);
  const std::int64_t size = kColours * height * width;
  const T* const from = images.const_data_ptr<T>();
  const float* const rows = draws.const_data_ptr<float>();
  T* const to = out.data_ptr<T>();
  at::parallel_for(0, images.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const Change change(rows + i * kColumns, height, width);
      if (map == Map::kTransposed) {
        transposed_image(from + i * size, change, to + i * size);
      } else {
        forward_image(from + i * size, change, map == Map::kAffine, to + i * size);
      }
    }
  });
}

/// The fused pass. Its derivative is its transposed linear part, whose derivative is the linear
/// part, and so on.
class Augment : public torch::autograd::Function<Augment> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& input,
                            const at::Tensor& draws, std::int64_t map) {
    RECORD_FUNCTION("diff_augment", std::vector<c10::IValue>{input});
    const at::Tensor images = input.contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor out =
        at::empty(images.sizes(), images.options().memory_format(at::MemoryFormat::ChannelsLast));
    if (images.scalar_type() == at::kFloat) {
      map_images<float>(images, draws, static_cast<Map>(map), out);
    } else {
      map_images<at::BFloat16>(images, draws, static_cast<Map>(map), out);
    }
    context->saved_data["draws"] = draws;
    context->saved_data["map"] = map;
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto map = static_cast<Map>(context->saved_data["map"].toInt());
    const Map other = map == Map::kTransposed ? Map::kLinear : Map::kTransposed;
    return {Augment::apply(gradients[0], context->saved_data["draws"].toTensor(),
                           static_cast<std::int64_t>(other)),
            at::Tensor(), at::Tensor()};
  }
};

at::Tensor augment_plainly(const at::Tensor& images, const at::Tensor& draws) {
  const at::Tensor columns = draws.to(images.device());
  const auto column = [&](Column c) { return columns.select(1, c).view({-1, 1, 1, 1}); };
  const at::Tensor x = images.to(at::kFloat);
  const at::Tensor coloured = column(kGain) * x + column(kGrey) * x.mean({1}, true) +
                              column(kFlat) * x.mean({1, 2, 3}, true) + column(kOffset);
  const std::int64_t height = x.size(2);
  const std::int64_t width = x.size(3);
  const auto whole = [&](Column c) { return columns.select(1, c).to(at::kLong).view({-1, 1, 1}); };
  const at::TensorOptions longs = columns.options().dtype(at::kLong);
  const at::Tensor row = at::arange(height, longs).view({1, -1, 1});
  const at::Tensor right = at::arange(width, longs).view({1, 1, -1});
  const at::Tensor from_row = row + whole(kDown);
  const at::Tensor from_column = right + whole(kRight);
  const at::Tensor inside =
      (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width);
  const at::Tensor cut = (row >= whole(kTop)) & (row < whole(kBottom)) & (right >= whole(kLeft)) &
                         (right < whole(kEnd));
  const at::Tensor image = at::arange(x.size(0), longs).view({-1, 1, 1});
  const at::Tensor moved =
      coloured.permute({0, 2, 3, 1})
          .index({image, from_row.clamp(0, height - 1), from_column.clamp(0, width - 1)});
  const at::Tensor kept = (inside & ~cut).unsqueeze(3);
  return at::where(kept, moved, 0).permute({0, 3, 1, 2}).to(images.scalar_type());
}

}  // namespace

at::Tensor augment(const at::Tensor& images, const AugmentPolicy& policy, double p,
                   const RandomKey& key, bool plain) {
  TORCH_CHECK(images.dim() == 4 && images.size(1) == kColours,
              "augment: expected images [N,3,H,W], found ", images.sizes());
  TORCH_CHECK(images.scalar_type() == at::kFloat || images.scalar_type() == at::kBFloat16,
              "augment: expected float or bf16 images, found ", images.scalar_type());
  TORCH_CHECK(p >= 0 && p <= 1, "augment: p = ", p, " is outside [0, 1]");
  if (p == 0 || !(policy.colour || policy.translation || policy.cutout)) return images;
  const at::Tensor draws = draw(images.size(0), images.size(2), images.size(3), policy, p, key);
  if (plain || !images.is_cpu()) return augment_plainly(images, draws);
  return Augment::apply(images, draws, static_cast<std::int64_t>(Map::kAffine));
}

}  // namespace gp
