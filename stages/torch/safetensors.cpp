#include "stages/torch/safetensors.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <tuple>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"

namespace gp {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

using nlohmann::json;

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr char kMetadata[] = "__metadata__";

struct TypeName {
  const char* name;
  at::ScalarType type;
};
constexpr TypeName kTypes[] = {
    {"F64", at::kDouble}, {"F32", at::kFloat}, {"F16", at::kHalf},  {"BF16", at::kBFloat16},
    {"I64", at::kLong},   {"I32", at::kInt},   {"I16", at::kShort}, {"I8", at::kChar},
    {"U8", at::kByte},    {"BOOL", at::kBool},
};

const TypeName* find_type(const std::string& name) {
  for (const TypeName& type : kTypes) {
    if (name == type.name) return &type;
  }
  return nullptr;
}

const TypeName* find_type(at::ScalarType scalar_type) {
  for (const TypeName& type : kTypes) {
    if (scalar_type == type.type) return &type;
  }
  return nullptr;
}

/// One tensor of the header; `begin` and `end` count from the end of the header.
struct Entry {
  std::string name;
  at::ScalarType type = at::kFloat;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

/// Reads one file; only exists to carry its path into the messages.
class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : path_(path) {}

  Safetensors read() {
    std::error_code error;
    if (!std::filesystem::is_regular_file(path_, error)) fail("there is no such file");
    const std::uint64_t file_bytes = std::filesystem::file_size(path_, error);
    if (error) fail(error.message());
    std::ifstream file(path_, std::ios::binary);
    if (!file) fail("cannot be opened for reading");

    if (file_bytes < kLengthBytes) {
      fail("it has " + std::to_string(file_bytes) + " bytes, expected at least 8");
    }
    std::uint64_t header_bytes = 0;
    read_bytes(file, &header_bytes, kLengthBytes);
    if (header_bytes > kMaxHeaderBytes || header_bytes > file_bytes - kLengthBytes) {
      fail("its header claims " + std::to_string(header_bytes) + " bytes, the file has " +
           std::to_string(file_bytes) + " (limit " + std::to_string(kMaxHeaderBytes) + ")");
    }
    std::string header(header_bytes, '\0');
    read_bytes(file, header.data(), header_bytes);

    Safetensors result;
    std::vector<Entry> entries = parse_header(header, result.metadata);
    check_cover(entries, file_bytes - kLengthBytes - header_bytes);
    for (const Entry& entry : entries) {  // in the order of the file
      at::Tensor tensor = at::empty(entry.shape, at::TensorOptions().dtype(entry.type));
      read_bytes(file, tensor.data_ptr(), entry.end - entry.begin);
      if (entry.type == at::kBool) check_bools(entry, tensor);
      result.tensors.emplace(entry.name, std::move(tensor));
    }
    return result;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(path_.string() + ": not a usable safetensors file: " + what);
  }
  [[noreturn]] void fail(const std::string& tensor, const std::string& what) const {
    fail("tensor '" + tensor + "': " + what);
  }

  void read_bytes(std::ifstream& file, void* to, std::uint64_t count) const {
    file.read(static_cast<char*>(to), static_cast<std::streamsize>(count));
    if (static_cast<std::uint64_t>(file.gcount()) != count) fail("it ends early");
  }

  std::vector<Entry> parse_header(const std::string& text,
                                  std::map<std::string, std::string>& metadata) const {
    if (text.empty() || text.front() != '{') fail("its header does not start with '{'");
    // The parser keeps the last of equal keys; two tensors of one name would hide one of them.
    std::vector<std::set<std::string>> keys;
    std::string repeated;
    const json::parser_callback_t watch = [&](int, json::parse_event_t event, json& value) {
      if (event == json::parse_event_t::object_start) keys.emplace_back();
      if (event == json::parse_event_t::object_end) keys.pop_back();
      if (event == json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
        repeated = value.get<std::string>();
      return true;
    };
    json header;
    try {
      header = json::parse(text, watch);
    } catch (const json::exception& error) {
      fail(std::string("its header is no JSON: ") + error.what());
    }
    if (!repeated.empty()) fail("the name '" + repeated + "' occurs twice in its header");
    if (!header.is_object()) fail("its header is no JSON object");

    std::vector<Entry> entries;
    for (const auto& [name, value] : header.items()) {
      if (name == kMetadata) {
        if (!value.is_object()) fail("__metadata__ is no JSON object");
        for (const auto& [key, item] : value.items()) {
          if (!item.is_string()) fail("__metadata__." + key + " is no string");
          metadata[key] = item.get<std::string>();
        }
      } else {
        entries.push_back(parse_entry(name, value));
      }
    }
    return entries;
  }

  Entry parse_entry(const std::string& name, const json& value) const {
    Entry entry;
    entry.name = name;
    if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
        !value.contains("data_offsets") || value.size() != 3) {
      fail(name, "expected an object of dtype, shape and data_offsets");
    }
    const TypeName* type =
        value["dtype"].is_string() ? find_type(value["dtype"].get<std::string>()) : nullptr;
    if (type == nullptr) {
      fail(name, "unknown dtype " + value["dtype"].dump() +
                     ", expected one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL");
    }
    entry.type = type->type;

    if (!value["shape"].is_array()) fail(name, "shape is no list");
    std::int64_t bytes = static_cast<std::int64_t>(at::elementSize(entry.type));
    std::int64_t extent = bytes;  // the same with empty dimensions as 1: what strides need
    for (const json& item : value["shape"]) {
      if (!item.is_number_unsigned() || item.get<std::uint64_t>() > INT64_MAX) {
        fail(name, "shape " + value["shape"].dump() + " is no list of sizes");
      }
      const auto size = item.get<std::int64_t>();
      if (__builtin_mul_overflow(extent, std::max<std::int64_t>(size, 1), &extent)) {
        fail(name, "shape " + value["shape"].dump() + " is too large");
      }
      bytes *= size;
      entry.shape.push_back(size);
    }

    const json& offsets = value["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
        !offsets[1].is_number_unsigned()) {
      fail(name, "data_offsets is no pair of offsets: " + offsets.dump());
    }
    entry.begin = offsets[0].get<std::uint64_t>();
    entry.end = offsets[1].get<std::uint64_t>();
    if (entry.end < entry.begin || entry.end - entry.begin != static_cast<std::uint64_t>(bytes)) {
      fail(name, "data_offsets " + offsets.dump() + " do not span the " + std::to_string(bytes) +
                     " bytes of its shape");
    }
    return entry;
  }

  /// Sorts by place and checks that the tensors cover the data exactly.
  void check_cover(std::vector<Entry>& entries, std::uint64_t data_bytes) const {
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
    });
    std::uint64_t at = 0;
    for (const Entry& entry : entries) {
      if (entry.begin != at) {
        fail(entry.name, "starts at byte " + std::to_string(entry.begin) +
                             " of the data, expected " + std::to_string(at) +
                             (entry.begin < at ? " (overlap)" : " (hole)"));
      }
      at = entry.end;
    }
    if (at != data_bytes) {
      fail("its tensors take " + std::to_string(at) + " bytes, the file holds " +
           std::to_string(data_bytes) + (at > data_bytes ? " (truncated?)" : " (trailing bytes)"));
    }
  }

  /// A bool that is neither 0 nor 1 is undefined behaviour for whoever reads it.
  void check_bools(const Entry& entry, const at::Tensor& tensor) const {
    const auto* bytes = static_cast<const std::uint8_t*>(tensor.const_data_ptr());
    if (std::any_of(bytes, bytes + tensor.numel(), [](std::uint8_t b) { return b > 1; })) {
      fail(entry.name, "BOOL holds bytes other than 0 and 1");
    }
  }

  const std::filesystem::path& path_;
};

}  // namespace

Safetensors read_safetensors(const std::filesystem::path& path) { return Reader(path).read(); }

void write_safetensors(const std::filesystem::path& path, const Safetensors& contents) {
  struct Item {
    const std::string* name;
    at::Tensor tensor;
    const TypeName* type;
  };
  std::vector<Item> items;
  for (const auto& [name, tensor] : contents.tensors) {
    const TypeName* type = tensor.defined() ? find_type(tensor.scalar_type()) : nullptr;
    if (type == nullptr || name == kMetadata) {
      throw RunError(path.string() + ": tensor '" + name + "' cannot be written: " +
                     (type == nullptr ? "undefined, or of a type safetensors does not have"
                                      : "that name is reserved"));
    }
    items.push_back({&name, tensor.detach().cpu().contiguous(), type});
  }
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return a.tensor.element_size() > b.tensor.element_size();  // the map gave them by name
  });

  json header = json::object();
  if (!contents.metadata.empty()) header[kMetadata] = contents.metadata;
  std::uint64_t data_bytes = 0;
  for (const Item& item : items) {
    const std::uint64_t end = data_bytes + item.tensor.nbytes();
    header[*item.name] = {{"dtype", item.type->name},
                          {"shape", item.tensor.sizes().vec()},
                          {"data_offsets", {data_bytes, end}}};
    data_bytes = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception& error) {  // a name or value that is no UTF-8
    throw RunError(path.string() + ": cannot be written: " + error.what());
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');  // aligns the data
  if (text.size() > kMaxHeaderBytes) {
    throw RunError(path.string() + ": cannot be written: its header would have " +
                   std::to_string(text.size()) + " bytes, more than the format allows");
  }

  std::vector<std::uint8_t> bytes(kLengthBytes + text.size() + data_bytes);
  const std::uint64_t length = text.size();
  std::memcpy(bytes.data(), &length, kLengthBytes);
  std::memcpy(bytes.data() + kLengthBytes, text.data(), text.size());
  std::uint8_t* to = bytes.data() + kLengthBytes + text.size();
  for (const Item& item : items) {
    if (item.tensor.nbytes() == 0) continue;
    std::memcpy(to, item.tensor.const_data_ptr(), item.tensor.nbytes());
    to += item.tensor.nbytes();
  }
  write_file(path, std::span<const std::uint8_t>(bytes));
}

}  // namespace gp
