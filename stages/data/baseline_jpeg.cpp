#include "stages/data/baseline_jpeg.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "stages/data/jpeg_entropy.hpp"
#include "stages/data/jpeg_kernels.hpp"

namespace gp {

// Other libraries with this interface reduce in other ways.
#ifdef LIBJPEG_TURBO_VERSION

namespace {

#if JPEG_LIB_VERSION >= 70
int dct_size(const jpeg_component_info& component) { return component.DCT_h_scaled_size; }
int smallest_dct_size(const jpeg_decompress_struct& info) { return info.min_DCT_h_scaled_size; }
#else
int dct_size(const jpeg_component_info& component) { return component.DCT_scaled_size; }
int smallest_dct_size(const jpeg_decompress_struct& info) { return info.min_DCT_scaled_size; }
#endif

/// Zigzag order: [k] is row * 8 + column.
constexpr std::array<std::uint8_t, 64> kZigzag = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

HuffmanCode code_of(const JHUFF_TBL& table) {
  HuffmanCode code;
  std::copy_n(table.bits, code.counts.size(), code.counts.begin());
  std::copy_n(table.huffval, code.symbols.size(), code.symbols.begin());
  return code;
}

/// Where coefficients go, by index in zigzag order; indices behind the block lead nowhere.
using Places = std::array<std::uint8_t, AcSymbols::kEndOfBlock + 2 * 64>;

/// A component of the picture, with all that its blocks need.
struct Component {
  int blocks_across;  ///< in an MCU
  int blocks_down;
  int size;  ///< pixels of a block, each way
  bool doubled_across;
  bool doubled_down;

  std::shared_ptr<const DcTable> dc;
  std::shared_ptr<const AcTable> ac;
  JpegKernels::InverseDct inverse_dct;  ///< none where size is 1
  JpegSteps steps;
  int dc_step;
  int largest_dc;
  Places places;

  int predicted_dc = 0;
  std::vector<std::uint8_t> samples;  ///< of one row of MCUs
  std::ptrdiff_t stride;

  const std::uint8_t* row(int y) const {
    return samples.data() + (doubled_down ? y / 2 : y) * stride;
  }
};

/// Same value for size x size pixels.
void fill_block(int dc, int size, std::uint8_t* out, std::ptrdiff_t stride) {
  const int sample = std::clamp(((dc + 4) >> 3) + 128, 0, 255);
  for (int y = 0; y < size; ++y, out += stride) {
    for (int x = 0; x < size; ++x) out[x] = static_cast<std::uint8_t>(sample);
  }
}

/// Reads the AC coefficients of a block, storing them where `kStore` says so. Returns the index
/// behind the last one, plus AcTable::kEndOfBlock where it was not the 63rd; 0 when there is
/// something wrong. `bits` must have been refilled after no more than 27 bits.
template <bool kStore>
[[gnu::always_inline]] inline int read_ac(EntropyBits::Cursor& bits, const AcTable& table,
                                          const Places& places, std::int16_t* values) {
  int k = 1;
  const auto store = [&](int at, std::int16_t value) {
    if constexpr (kStore) values[places[static_cast<std::size_t>(at)]] = value;
  };
  AcSymbols symbols;
  for (;;) {
    symbols = table.find(bits.bits);
    if (symbols.length() == 0) [[unlikely]] {
      bits.refill();
      symbols = table.find_one(bits.bits);
      if (symbols.length() == 0) return 0;
      if (symbols.size() == 0) {  // nothing to store
        bits.skip(symbols.length());
        k += symbols.advance();
        if (k >= 64) break;
        bits.refill();
        continue;
      }
    }
    // One alone is stored twice.
    store(k + symbols.offset1(), symbols.value1());
    store(k + symbols.advance() - 1, symbols.value2(bits.bits));
    bits.skip(symbols.length());
    k += symbols.advance();
    if (k >= 64) break;
    bits.refill();
  }
  if (k == 64 || (k > AcSymbols::kEndOfBlock && k < AcSymbols::kEndOfBlock + 64)) [[likely]] {
    return k;
  }
  // Two symbols were taken at once, of which the second belongs to the next block?
  k -= symbols.advance();
  bits.unread(symbols.length());
  symbols = table.find_one(bits.bits);
  store(k + symbols.offset1(), symbols.value2(bits.bits));
  bits.skip(symbols.length());
  return k + symbols.advance() == 64 ? 64 : 0;
}

/// The table of `code`; null where that is not to be used. Each thread keeps the last two that it
/// has built (luma's and chroma's), because nearly all files come with the ones that the standard
/// gives as examples, and building them takes a tenth of the time of a small picture.
template <class Table>
std::shared_ptr<const Table> table_of(const HuffmanCode& code) {
  struct Kept {
    HuffmanCode code{};
    std::shared_ptr<const Table> table;
  };
  thread_local std::array<Kept, 2> kept;
  thread_local std::size_t oldest = 0;
  for (const Kept& one : kept) {
    if (one.table != nullptr && one.code == code) return one.table;
  }
  auto table = std::make_shared<Table>();
  if (!table->build(code)) return nullptr;
  kept[oldest] = {code, table};
  oldest = 1 - oldest;
  return table;
}

class BaselineDecoder {
 public:
  BaselineDecoder(const jpeg_decompress_struct& info, const JpegKernels& kernels)
      : info_(info),
        kernels_(kernels),
        bits_({info.src->next_input_byte, info.src->bytes_in_buffer}) {}

  /// False where a table is missing or not to be used.
  bool prepare();
  bool decode(Orientation orientation, ImageView out);

 private:
  bool prepare(const jpeg_component_info& from, Component& component);
  bool read_mcu_row();
  bool read_block(EntropyBits::Cursor& bits, Component& component, std::uint8_t* out);
  void write_row(int y, std::uint8_t* rgb);
  const std::uint8_t* full_row(const Component& component, int y, std::vector<std::uint8_t>& row);

  const jpeg_decompress_struct& info_;
  const JpegKernels& kernels_;
  EntropyBits bits_;
  std::vector<Component> components_;
  int mcus_across_ = 0;
  int mcus_down_ = 0;
  int mcu_rows_ = 0;  ///< rows of pixels
  int mcus_to_restart_ = 0;
  int restarts_ = 0;
  std::vector<std::uint8_t> doubled_[2];  ///< rows of chroma
};

bool BaselineDecoder::prepare() {
  const bool gray = info_.num_components == 1;
  const int smallest = smallest_dct_size(info_);
  mcu_rows_ = (gray ? 1 : info_.max_v_samp_factor) * smallest;
  const auto groups = [](JDIMENSION pixels, int mcu) {
    return static_cast<int>((pixels + static_cast<JDIMENSION>(mcu) - 1) /
                            static_cast<JDIMENSION>(mcu));
  };
  mcus_across_ = groups(info_.image_width, (gray ? 1 : info_.max_h_samp_factor) * DCTSIZE);
  mcus_down_ = groups(info_.image_height, (gray ? 1 : info_.max_v_samp_factor) * DCTSIZE);
  mcus_to_restart_ = static_cast<int>(info_.restart_interval);
  components_.resize(static_cast<std::size_t>(info_.num_components));
  for (std::size_t c = 0; c < components_.size(); ++c) {
    if (!prepare(info_.comp_info[c], components_[c])) return false;
  }
  return true;
}

bool BaselineDecoder::prepare(const jpeg_component_info& from, Component& component) {
  const bool gray = info_.num_components == 1;
  component.blocks_across = gray ? 1 : from.h_samp_factor;
  component.blocks_down = gray ? 1 : from.v_samp_factor;
  component.size = dct_size(from);
  const int smallest = smallest_dct_size(info_);
  component.doubled_across =
      from.h_samp_factor * component.size < info_.max_h_samp_factor * smallest;
  component.doubled_down = from.v_samp_factor * component.size < info_.max_v_samp_factor * smallest;

  if (from.quant_tbl_no >= NUM_QUANT_TBLS || from.dc_tbl_no >= NUM_HUFF_TBLS ||
      from.ac_tbl_no >= NUM_HUFF_TBLS) {
    return false;
  }
  const JQUANT_TBL* steps = info_.quant_tbl_ptrs[from.quant_tbl_no];
  const JHUFF_TBL* dc = info_.dc_huff_tbl_ptrs[from.dc_tbl_no];
  const JHUFF_TBL* ac = info_.ac_huff_tbl_ptrs[from.ac_tbl_no];
  if (steps == nullptr || dc == nullptr || ac == nullptr) return false;
  component.dc = table_of<DcTable>(code_of(*dc));
  component.ac = table_of<AcTable>(code_of(*ac));
  if (component.dc == nullptr || component.ac == nullptr) return false;

  component.inverse_dct = component.size == 4   ? kernels_.idct_4x4
                          : component.size == 2 ? kernels_.idct_2x2
                                                : nullptr;
  component.places.fill(JpegBlock::kUnused);
  if (component.size > 1) {
    for (std::size_t k = 0; k < 64; ++k) {
      const int place = JpegBlock::place(component.size, kZigzag[k] / 8, kZigzag[k] % 8);
      component.places[k] = static_cast<std::uint8_t>(place);
      // libjpeg has brought the steps into natural order.
      if (place != JpegBlock::kUnused) component.steps.set(place, steps->quantval[kZigzag[k]]);
    }
  }
  constexpr int kLargestDc = 4080;  // 510 * 8: the range limit's table ends at 511
  component.dc_step = steps->quantval[0];
  component.largest_dc = component.dc_step == 0 ? 32767 : kLargestDc / component.dc_step;
  const std::ptrdiff_t width =
      std::ptrdiff_t{mcus_across_} * component.blocks_across * component.size;
  component.stride = width;
  component.samples.resize(
      static_cast<std::size_t>(width * component.blocks_down * component.size));
  return true;
}

[[gnu::always_inline]] inline bool BaselineDecoder::read_block(EntropyBits::Cursor& bits,
                                                               Component& component,
                                                               std::uint8_t* out) {
  bits.refill();
  const DcTable::Entry difference = component.dc->find(bits.bits);
  bits.skip(difference.length);
  component.predicted_dc += difference.difference;
  const int dc = component.predicted_dc;
  if (difference.length == 0 || std::abs(dc) > component.largest_dc) return false;
  if (component.size == 1) {
    if (read_ac<false>(bits, *component.ac, component.places, nullptr) == 0) return false;
    *out = static_cast<std::uint8_t>(std::clamp(((dc * component.dc_step + 4) >> 3) + 128, 0, 255));
    return true;
  }
  JpegBlock block;
  block.clear();
  block.values[component.places[0]] = static_cast<std::int16_t>(dc);
  const int end = read_ac<true>(bits, *component.ac, component.places, block.values.data());
  if (end == AcSymbols::kEndOfBlock + 1) {
    fill_block(dc * component.dc_step, component.size, out, component.stride);
    return true;
  }
  return end != 0 && component.inverse_dct(block, component.steps, out, component.stride);
}

bool BaselineDecoder::read_mcu_row() {
  for (int mcu_x = 0; mcu_x < mcus_across_; ++mcu_x) {
    if (info_.restart_interval != 0) {
      if (mcus_to_restart_ == 0) {
        if (!bits_.pass_restart(restarts_)) return false;
        restarts_ = (restarts_ + 1) % 8;
        mcus_to_restart_ = static_cast<int>(info_.restart_interval);
        for (Component& component : components_) component.predicted_dc = 0;
      }
      --mcus_to_restart_;
    }
    if (!bits_.prepare()) return false;
    EntropyBits::Cursor bits = bits_.cursor;
    for (Component& component : components_) {
      const std::ptrdiff_t size = component.size;
      std::uint8_t* out = component.samples.data() + mcu_x * component.blocks_across * size;
      for (int v = 0; v < component.blocks_down; ++v, out += size * component.stride) {
        for (int h = 0; h < component.blocks_across; ++h) {
          if (!read_block(bits, component, out + h * size)) return false;
        }
      }
    }
    bits_.cursor = bits;
  }
  return true;
}

const std::uint8_t* BaselineDecoder::full_row(const Component& component, int y,
                                              std::vector<std::uint8_t>& row) {
  const std::uint8_t* in = component.row(y);
  if (!component.doubled_across) return in;
  // Samples that the picture has; libjpeg's downsampled_width.
  const auto width = static_cast<std::size_t>(
      (static_cast<std::int64_t>(info_.image_width) * component.size + 2 * DCTSIZE - 1) /
      (2 * DCTSIZE));
  row.resize(2 * width);
  if (smallest_dct_size(info_) == 1 || width <= 2) {
    for (std::size_t x = 0; x < width; ++x) row[2 * x] = row[2 * x + 1] = in[x];
    return row.data();
  }
  // jdsample.c, h2v1_fancy_upsample(): three quarters of the nearer, one of the farther.
  row[0] = in[0];
  row[1] = static_cast<std::uint8_t>((in[0] * 3 + in[1] + 2) >> 2);
  for (std::size_t x = 1; x + 1 < width; ++x) {
    row[2 * x] = static_cast<std::uint8_t>((in[x] * 3 + in[x - 1] + 1) >> 2);
    row[2 * x + 1] = static_cast<std::uint8_t>((in[x] * 3 + in[x + 1] + 2) >> 2);
  }
  row[2 * width - 2] = static_cast<std::uint8_t>((in[width - 1] * 3 + in[width - 2] + 1) >> 2);
  row[2 * width - 1] = in[width - 1];
  return row.data();
}

void BaselineDecoder::write_row(int y, std::uint8_t* rgb) {
  const int width = static_cast<int>(info_.output_width);
  if (components_.size() == 1) {
    const std::uint8_t* in = components_[0].row(y);
    for (int x = 0; x < width; ++x, rgb += kChannels) rgb[0] = rgb[1] = rgb[2] = in[x];
    return;
  }
  kernels_.ycc_to_rgb(components_[0].row(y), full_row(components_[1], y, doubled_[0]),
                      full_row(components_[2], y, doubled_[1]), width, rgb);
}

bool BaselineDecoder::decode(Orientation orientation, ImageView out) {
  const ImageShape stored{static_cast<int>(info_.output_height),
                          static_cast<int>(info_.output_width)};
  std::vector<std::uint8_t> turned;
  if (orientation != Orientation::kNormal) {
    turned.resize(static_cast<std::size_t>(stored.width) * kChannels);
  }
  int y = 0;
  for (int mcu_y = 0; mcu_y < mcus_down_; ++mcu_y) {
    if (!read_mcu_row()) return false;
    for (int i = 0; i < mcu_rows_ && y < stored.height; ++i, ++y) {
      if (orientation == Orientation::kNormal) {
        write_row(i, out.row(y));
      } else {
        write_row(i, turned.data());
        place_row(turned.data(), y, stored, orientation, out);
      }
    }
  }
  return bits_.finish();
}

}  // namespace

bool is_baseline_jpeg(const jpeg_decompress_struct& info) {
  const bool gray = info.num_components == 1 && info.jpeg_color_space == JCS_GRAYSCALE;
  const bool colour = info.num_components == 3 && info.jpeg_color_space == JCS_YCbCr;
  if (!(gray || colour) || info.out_color_space != JCS_RGB || info.data_precision != 8 ||
      info.progressive_mode || info.arith_code || info.comps_in_scan != info.num_components ||
      info.Ss != 0 || info.Se != DCTSIZE2 - 1 || info.Ah != 0 || info.Al != 0) {
    return false;
  }
  for (int c = 0; c < info.num_components; ++c) {
    if (info.cur_comp_info[c] != &info.comp_info[c]) return false;  // another order
    if (dct_size(info.comp_info[c]) > 4) return false;  // the full transform is libjpeg's
  }
  if (gray) return true;
  const jpeg_component_info* parts = info.comp_info;
  if (parts[0].h_samp_factor > 2 || parts[0].v_samp_factor > 2) return false;
  for (int c = 1; c < 3; ++c) {
    if (parts[c].h_samp_factor != 1 || parts[c].v_samp_factor != 1) return false;
    const bool across = dct_size(parts[c]) < parts[0].h_samp_factor * smallest_dct_size(info);
    const bool down = dct_size(parts[c]) < parts[0].v_samp_factor * smallest_dct_size(info);
    // These would have to be interpolated between rows.
    if (down && (across || smallest_dct_size(info) > 1)) return false;
  }
  return true;
}

bool decode_baseline_jpeg(const jpeg_decompress_struct& info, Orientation orientation,
                          ImageView out) {
  if (!is_baseline_jpeg(info)) return false;
  BaselineDecoder decoder(info, jpeg_kernels());
  return decoder.prepare() && decoder.decode(orientation, out);
}

#else

bool is_baseline_jpeg(const jpeg_decompress_struct& /*info*/) { return false; }

bool decode_baseline_jpeg(const jpeg_decompress_struct& /*info*/, Orientation /*orientation*/,
                          ImageView /*out*/) {
  return false;
}

#endif

}  // namespace gp
