#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace gp {

enum class ImageFormat { kJpeg, kPng, kWebp, kBmp, kTiff };

/// "JPEG", "PNG", ...
std::string to_string(ImageFormat format);

/// Tells the format by the first bytes, never by a name. Throws SampleError naming what it is
/// instead ("unsupported format GIF", "a Git LFS pointer, not the image itself", "the file is
/// empty").
ImageFormat detect_format(std::span<const std::uint8_t> bytes);

}  // namespace gp
