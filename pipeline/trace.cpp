#include "pipeline/trace.hpp"

#include <nlohmann/json.hpp>

#include "pipeline/files.hpp"

namespace gp {
namespace {

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// Nanoseconds as the format's microseconds.
std::string microseconds(Trace::Clock::duration duration) {
  char text[32];
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
  std::snprintf(text, sizeof text, "%.3f", static_cast<double>(ns) / 1e3);
  return text;
}

}  // namespace

void Trace::Track::add(std::uint32_t name, Clock::time_point start, Clock::time_point end,
                       SampleRef about) {
  if (trace_.room_.fetch_sub(1, std::memory_order_relaxed) <= 0) return;
  spans_.push_back({start, end, about, name});
}

std::uint32_t Trace::name(const std::string& text) {
  const std::lock_guard lock(mutex_);
  return names_.try_emplace(text, static_cast<std::uint32_t>(names_.size())).first->second;
}

Trace::Track& Trace::add_track(const std::string& name) {
  const std::lock_guard lock(mutex_);
  return tracks_.emplace_back(*this, name);
}

void Trace::write(const std::filesystem::path& file,
                  const std::function<std::string(std::uint64_t item)>& key_of) const {
  std::vector<std::string> names(names_.size());
  for (const auto& [text, number] : names_) names[number] = quoted(text);

  std::string json = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  json += R"({"ph":"M","pid":1,"name":"process_name","args":{"name":"gan-pipeline"}})";
  int thread = 0;
  for (const Track& track : tracks_) {
    ++thread;
    const std::string place = R"("pid":1,"tid":)" + std::to_string(thread);
    json += ",\n{\"ph\":\"M\"," + place + R"(,"name":"thread_name","args":{"name":)" +
            quoted(track.name_) + "}}";
    for (const Track::Span& span : track.spans_) {
      json += ",\n{\"ph\":\"X\"," + place + ",\"name\":" + names[span.name] +
              ",\"ts\":" + microseconds(span.start - start_) +
              ",\"dur\":" + microseconds(span.end - span.start);
      if (span.about.item != SampleRef::kNone) {
        json += ",\"args\":{\"key\":" + quoted(key_of(span.about.item)) +
                ",\"epoch\":" + std::to_string(span.about.epoch + 1) + "}";
      }
      json += '}';
    }
  }
  json += "\n]}\n";
  write_file(file, std::string_view(json));
}

}  // namespace gp
