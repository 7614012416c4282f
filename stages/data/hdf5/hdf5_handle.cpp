#include "stages/data/hdf5/hdf5_handle.hpp"

#include <cstdlib>
#include <string_view>
#include <vector>

#include "pipeline/files.hpp"

namespace gp::hdf5 {
namespace {

std::mutex& library_mutex() {
  static std::mutex mutex;
  return mutex;
}

herr_t collect(unsigned /*n*/, const H5E_error2_t* error, void* lines) {
  std::string line = error->func_name != nullptr ? error->func_name : "?";
  if (error->desc != nullptr) line += std::string(": ") + error->desc;
  static_cast<std::vector<std::string>*>(lines)->push_back(std::move(line));
  return 0;
}

/// The errno that a line of HDF5's ends with where the system refused to write: "file write failed:
/// time = .., filename = .., errno = 28, error message = .."; else 0.
int system_error(const std::string& line) {
  constexpr std::string_view kKey = "errno = ";
  const std::size_t at = line.find(kKey);
  if (at == std::string::npos || line.find("write failed") == std::string::npos) return 0;
  return std::atoi(line.c_str() + at + kKey.size());
}

}  // namespace

Session::Session() : lock_(library_mutex()) {
  // Its clean-up at exit crashes on files that a full disk cut off; our handles close all there is.
  H5dont_atexit();
  if (H5open() < 0) throw DataError("HDF5 cannot start");
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

void fail(const std::string& what) {
  std::vector<std::string> lines;  // innermost first
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &lines);
  H5Eclear2(H5E_DEFAULT);
  if (!lines.empty()) {
    if (const int error = system_error(lines.front()); error != 0) {
      throw Failure(what + ": " + write_failure(error));
    }
  }
  std::string text = what + "\n  HDF5 says:";
  if (lines.empty()) text += " nothing";
  for (const std::string& line : lines) text += "\n    " + line;
  throw Failure(text);
}

Handle file_access() {
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "HDF5 cannot make a property list");
  check(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18), "HDF5 format version");
  check(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG), "HDF5 close degree");
  check(H5Pset_file_locking(access, 0, 1), "HDF5 file locking");
  return access;
}

Handle string_type(std::size_t width, const std::string& what) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose, what);
  check(H5Tset_size(type, width), what);
  check(H5Tset_strpad(type, H5T_STR_NULLPAD), what);
  check(H5Tset_cset(type, H5T_CSET_UTF8), what);
  return type;
}

}  // namespace gp::hdf5
