#include "stages/data/read_item.hpp"

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"

namespace gp {

void read_item(const std::filesystem::path& path, StageOutput& out) {
  // Opening anything else, such as a pipe, could block for ever.
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status))
    throw SampleError("the file " + path.string() + " is missing");
  if (!std::filesystem::is_regular_file(status))
    throw SampleError(path.string() + " is not a file");
  if (file_size_or_none(path) > kLargestItem) {
    throw SampleError("the file " + path.string() + " is larger than 1 GiB");
  }
  try {
    read_file(path, out.bytes());
  } catch (const DataError& failure) {
    throw SampleError(failure.what());
  }
}

std::int64_t file_size_or_none(const std::filesystem::path& path) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  return error ? -1 : static_cast<std::int64_t>(size);
}

}  // namespace gp
