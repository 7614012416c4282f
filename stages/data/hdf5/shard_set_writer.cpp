#include "stages/data/hdf5/shard_set_writer.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"

namespace gp {
namespace {

/// Whether a name is one of ours: "manifest.json", "shard-00001.h5.exact.tmp", ...
bool is_temporary(const std::string& name) {
  const std::string suffix = ".tmp";
  if (name.size() < suffix.size() || !name.ends_with(suffix)) return false;
  std::string rest = name.substr(0, name.size() - suffix.size());
  if (rest.ends_with(".exact")) rest.resize(rest.size() - std::strlen(".exact"));
  return rest == kManifestFile || rest == kRejectsFile || from_shard_name(rest) >= 0;
}

/// Removes the files of `root` that `unwanted` picks by name; it picks none but our own names.
template <class Predicate>
void remove_files(const std::filesystem::path& root, Predicate unwanted) try {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    if (unwanted(entry.path().filename().string())) found.push_back(entry.path());
  }
  for (const std::filesystem::path& path : found) std::filesystem::remove(path);
} catch (const std::filesystem::filesystem_error& error) {
  throw RunError(root.string() + ": cannot remove files of an earlier build: " + error.what());
}

/// "- before" and "+ now" lines for what differs between the common head and the common tail.
std::vector<std::string> differing_lines(const std::vector<std::string>& before,
                                         const std::vector<std::string>& now) {
  std::size_t head = 0;
  while (head < std::min(before.size(), now.size()) && before[head] == now[head]) ++head;
  std::size_t tail = 0;
  while (tail < std::min(before.size(), now.size()) - head &&
         before[before.size() - 1 - tail] == now[now.size() - 1 - tail]) {
    ++tail;
  }
  std::vector<std::string> lines;
  for (std::size_t i = head; i < before.size() - tail; ++i) lines.push_back("- " + before[i]);
  for (std::size_t i = head; i < now.size() - tail; ++i) lines.push_back("+ " + now[i]);
  return lines;
}

/// Puts the complete set in `unfinished` in the place of the one in `root`. Begun again after it
/// was interrupted, it goes on: files that have been moved are no longer there to be moved. Takes
/// no room on the disk.
void put_in_place(const std::filesystem::path& root, const Manifest& manifest) try {
  const std::filesystem::path unfinished = root / kUnfinishedFolder;
  const auto move = [&](const std::string& name) {
    if (std::filesystem::exists(unfinished / name)) {
      std::filesystem::rename(unfinished / name, root / name);
    }
  };
  // Without its manifest, the folder counts as unfinished.
  std::filesystem::remove(root / kManifestFile);
  sync_to_disk(root);
  for (const ShardEntry& shard : manifest.shards) move(shard.file);
  move(kRejectsFile);
  // Shards of an older, larger set would be taken for part of this one.
  remove_files(root, [&](const std::string& name) {
    return from_shard_name(name) >= static_cast<std::int64_t>(manifest.shards.size());
  });
  sync_to_disk(root);
  move(kManifestFile);
  sync_to_disk(root);
  std::filesystem::remove_all(unfinished);
} catch (const std::filesystem::filesystem_error& error) {
  throw RunError(root.string() + ": cannot put the finished shards in place: " + error.what());
}

}  // namespace

void recover_shards(const std::filesystem::path& root) {
  const std::filesystem::path unfinished = root / kUnfinishedFolder;
  // The manifest is written last: with it the set is complete.
  if (std::filesystem::exists(unfinished / kManifestFile)) {
    put_in_place(root, read_manifest(unfinished));
    return;
  }
  std::error_code error;
  std::filesystem::remove_all(unfinished, error);
  if (error) throw RunError(unfinished.string() + ": cannot be removed: " + error.message());
}

ShardSetState inspect_shards(const std::filesystem::path& root, const ShardSetSpec& spec) {
  ShardSetState state;
  std::error_code error;
  if (!std::filesystem::exists(root / kManifestFile, error)) return state;
  Manifest manifest = read_manifest(root);
  state.difference = differing_lines(manifest.preprocessing, spec.preprocessing);
  // A digest may cover the preprocessing too, so it says something new only where that is the same.
  if (state.difference.empty() && manifest.source_digest != spec.source_digest) {
    state.difference.push_back("- source data " + manifest.source_digest);
    state.difference.push_back("+ source data " + spec.source_digest);
  }
  if (!state.difference.empty()) return state;
  for (const ShardEntry& shard : manifest.shards) {
    const std::uintmax_t bytes = std::filesystem::file_size(root / shard.file, error);
    if (error) {
      state.damage = shard.file + " is missing";
    } else if (bytes != shard.bytes) {
      state.damage = shard.file + " has " + std::to_string(bytes) + " bytes, the manifest says " +
                     std::to_string(shard.bytes);
    }
    if (!state.damage.empty()) return state;
  }
  state.finished = std::move(manifest);
  return state;
}

ShardSetWriter::ShardSetWriter(std::filesystem::path root, ShardSetSpec spec)
    : root_(std::move(root)), unfinished_(root_ / kUnfinishedFolder), spec_(std::move(spec)) {
  manifest_.shape = spec_.shape;
  manifest_.images_per_shard = static_cast<std::uint64_t>(spec_.images_per_shard);
  manifest_.class_names = spec_.class_names;
  manifest_.source_digest = spec_.source_digest;
  manifest_.preprocessing = spec_.preprocessing;
  manifest_.config_digest = preprocessing_digest(spec_.preprocessing);
  remove_files(root_, is_temporary);
  std::error_code error;
  std::filesystem::remove_all(unfinished_, error);
  std::filesystem::create_directory(unfinished_, error);
  if (error) throw RunError(unfinished_.string() + ": cannot make it anew: " + error.message());
}

ShardSetWriter::~ShardSetWriter() {
  shard_.reset();
  std::error_code ignored;
  // A complete set stays for `recover_shards`, should it have failed to get to its place.
  if (!std::filesystem::exists(unfinished_ / kManifestFile, ignored)) {
    std::filesystem::remove_all(unfinished_, ignored);
  }
}

void ShardSetWriter::open_shard() {
  std::uint64_t capacity = static_cast<std::uint64_t>(spec_.images_per_shard);
  if (spec_.expected_images > manifest_.images) {
    capacity = std::min(capacity, spec_.expected_images - manifest_.images);
  }
  shard_ = std::make_unique<ShardWriter>(
      unfinished_ / shard_name(manifest_.shards.size()),
      ShardInfo{spec_.shape, spec_.class_names, spec_.source_digest, manifest_.config_digest},
      static_cast<int>(capacity));
}

void ShardSetWriter::close_shard() {
  shard_->finish();
  ShardEntry entry;
  entry.file = shard_name(manifest_.shards.size());
  entry.bytes = std::filesystem::file_size(unfinished_ / entry.file);
  entry.sha256 = sha256_file(unfinished_ / entry.file);
  entry.images = static_cast<std::uint64_t>(shard_->count());
  entry.first = manifest_.images - entry.images;
  entry.tables_crc32c = shard_->tables_checksum();
  manifest_.shards.push_back(std::move(entry));
  shard_.reset();
}

void ShardSetWriter::append(std::span<const std::uint8_t> pixels, std::span<const std::string> keys,
                            std::span<const std::int32_t> labels) {
  while (!keys.empty()) {
    if (shard_ == nullptr) open_shard();
    const std::size_t room = static_cast<std::size_t>(shard_->capacity() - shard_->count());
    const std::size_t count = std::min(room, keys.size());
    const std::size_t bytes = count * spec_.shape.bytes();
    shard_->append(pixels.first(bytes), keys.first(count), labels.first(count));
    manifest_.images += count;
    if (count == room) close_shard();
    pixels = pixels.subspan(bytes);
    keys = keys.subspan(count);
    labels = labels.subspan(count);
  }
}

void ShardSetWriter::reject(const Reject& reject) {
  ++(reject.dropped ? manifest_.dropped : manifest_.rejected)[reject.stage];
  nlohmann::ordered_json line;
  line["key"] = reject.key;
  line["stage"] = reject.stage;
  line["reason"] = reject.reason;
  if (reject.dropped) line["dropped"] = true;
  rejects_ += line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

void ShardSetWriter::keep_rejects() const {
  if (rejects_.empty() || std::filesystem::exists(root_ / kManifestFile)) return;
  write_file(root_ / kRejectsFile, rejects_);
}

Manifest ShardSetWriter::finish(std::uint64_t read) {
  if (shard_ != nullptr) close_shard();
  if (manifest_.images == 0) {
    throw DataError(
        root_.string() + ": none of " + std::to_string(read) +
        " samples could be used; the first reject: " + rejects_.substr(0, rejects_.find('\n')));
  }
  write_file(unfinished_ / kRejectsFile, rejects_);
  manifest_.read = read;
  manifest_.rejects_bytes = rejects_.size();
  manifest_.rejects_sha256 = sha256_hex(rejects_);
  write_file(unfinished_ / kManifestFile, to_text(manifest_));
  put_in_place(root_, manifest_);
  return manifest_;
}

}  // namespace gp
