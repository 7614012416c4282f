#include "stages/data/csv.hpp"

#include <algorithm>

#include "pipeline/error.hpp"
#include "stages/data/plain_text.hpp"

namespace gp {
namespace {

[[noreturn]] void fail(const std::string& where, std::size_t line, const std::string& text) {
  throw DataError(where + ":" + std::to_string(line) + ": " + text);
}

class CsvParser {
 public:
  CsvParser(const std::string& text, const std::string& where) : text_(text), where_(where) {}

  std::vector<CsvRow> rows() {
    if (text_.rfind("\xFF\xFE", 0) == 0 || text_.rfind("\xFE\xFF", 0) == 0) {
      fail(where_, 1, "this is UTF-16; save the file as UTF-8");
    }
    if (text_.rfind("\xEF\xBB\xBF", 0) == 0) at_ = 3;
    std::vector<CsvRow> rows;
    while (at_ < text_.size()) {
      if (end_line()) continue;
      rows.push_back({line_, {}});
      do {
        rows.back().fields.push_back(field());
      } while (take(','));
      if (at_ < text_.size() && !end_line()) {
        fail(where_, line_, "text behind a closing quote; expected a comma or the end of the line");
      }
    }
    return rows;
  }

 private:
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool end_line() {
    const bool carriage_return = take('\r');
    if (!take('\n') && !carriage_return) return false;
    ++line_;
    return true;
  }

  std::string field() {
    const std::size_t line = line_;
    std::string value = take('"') ? quoted() : plain();
    if (!is_utf8(value)) fail(where_, line, "text that is not UTF-8; save the file as UTF-8");
    return value;
  }
  std::string plain() {
    const std::size_t from = at_;
    at_ = std::min(text_.find_first_of(",\r\n", from), text_.size());
    std::string value = text_.substr(from, at_ - from);
    if (value.find('"') != std::string::npos) {
      fail(where_, line_,
           "a quote within '" + value + "'; put the field in quotes and double those within");
    }
    return value;
  }
  std::string quoted() {
    const std::size_t opened = line_;
    std::string value;
    while (true) {
      if (at_ >= text_.size()) fail(where_, opened, "a quote is opened here and never closed");
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        if (!take('"')) return value;
        value += '"';
      } else if (const std::size_t from = at_; end_line()) {
        value.append(text_, from, at_ - from);
      } else {
        value += c;
        ++at_;
      }
    }
  }

  const std::string& text_;
  const std::string& where_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
};

}  // namespace

std::vector<CsvRow> parse_csv(const std::string& text, const std::string& where) {
  return CsvParser(text, where).rows();
}

}  // namespace gp
