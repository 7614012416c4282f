#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace gp {

/// An array of numbers.
struct NpyArray {
  std::vector<std::int64_t> shape;  ///< no numbers: a single value
  std::vector<double> values;       ///< in C order (the last index runs fastest)
};

/// What a .npz of NumPy holds: a zip of arrays by name (np.savez, np.savez_compressed; the format
/// of its members is numpy.lib.format, NEP 1).
struct Npz {
  std::map<std::string, NpyArray> arrays;
  std::map<std::string, std::string> texts;  ///< single byte strings (np.bytes_)
};

/// Reads the arrays called `names`; what is not there is left out, as is everything else. Numbers
/// are float64 or float32 of either byte order, in C or (up to two dimensions) Fortran order.
///
/// The header of an array decides before memory is taken: one of more than `max_values` numbers, or
/// a text of more than 64 KiB, is refused. So is what only Python could make sense of (pickled
/// objects). Throws DataError that names file and array and says what was found and expected.
Npz read_npz(const std::filesystem::path& path, const std::vector<std::string>& names,
             std::int64_t max_values);

/// Writes arrays as float64 in C order, uncompressed: temporary name, fsync, rename. Throws
/// RunError.
void write_npz(const std::filesystem::path& path, const Npz& contents);

}  // namespace gp
