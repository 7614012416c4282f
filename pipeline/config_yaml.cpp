#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <utility>

#include "pipeline/config_node.hpp"

namespace gp {
namespace {

// Far above any real configuration, far below what could hurt.
constexpr std::size_t kMaxBytes = std::size_t{1} << 20;
constexpr std::size_t kMaxNodes = 20000;
constexpr std::size_t kMaxDepth = 32;

using Node = ConfigNode;
using MarkOf = std::function<Mark(int, int)>;

/// Ends the parse; what is wrong has been noted.
struct Stop {};

/// Builds our nodes from yaml-cpp's events. YAML::Node would lose duplicate keys and quotes.
class Builder : public YAML::EventHandler {
 public:
  Builder(const MarkOf& mark_of, Problems& problems) : mark_of_(mark_of), problems_(problems) {}

  Node take() {
    for (const Mark& mark : container_keys_) {
      problems_.add(mark, "a list or map can't be a key; put quotes around a text");
    }
    return std::move(root_);
  }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0) {
      fail(mark,
           "a second document begins here; a configuration is one document: remove the '---', or "
           "mend the indentation");
    }
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (expects_key()) fail(mark, "this key has no name");
    Node node;
    node.mark = place(mark);
    finish(std::move(node), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (expects_key()) fail(mark, "an alias can't be a key");
    const auto named = anchors_.find(anchor);
    if (named == anchors_.end()) fail(mark, "this alias stands inside the value that it names");
    count(place(mark), named->second.second);
    attach(Node(named->second.first));
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check_tag(mark, tag);
    const bool quoted = tag == "!";
    if (expects_key()) {
      take_key(mark, value, quoted);
      return;
    }
    Node node;
    node.type = Node::Type::kScalar;
    node.mark = place(mark);
    node.text = value;
    node.quoted = quoted;
    finish(std::move(node), anchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(Node::Type::kList, mark, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(Node::Type::kMap, mark, tag, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    Node node;
    YAML::anchor_t anchor = YAML::NullAnchor;
    std::size_t nodes_before = 0;
    bool is_key = false;  ///< a list or map where a key is expected
    bool has_key = false;
    bool drop = false;  ///< the value that follows belongs to a refused key
    std::string key;
    Mark key_mark;
  };

  Mark place(const YAML::Mark& mark) const { return mark_of_(mark.line + 1, mark.column + 1); }

  [[noreturn]] void fail(const Mark& mark, std::string text) {
    problems_.add(mark, std::move(text));
    throw Stop{};
  }
  [[noreturn]] void fail(const YAML::Mark& mark, std::string text) {
    fail(place(mark), std::move(text));
  }

  bool expects_key() const {
    return !open_.empty() && open_.back().node.type == Node::Type::kMap && !open_.back().has_key;
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) {
    if (tag.empty() || tag == "?" || tag == "!") return;
    problems_.add(place(mark), "the tag " + shown(tag) +
                                   " has no meaning here; remove it (quotes make a value a text)");
  }

  void count(const Mark& mark, std::size_t nodes) {
    nodes_ += nodes;
    if (nodes_ > kMaxNodes) {
      fail(mark, "more than " + std::to_string(kMaxNodes) +
                     " values, aliases expanded; that is no configuration");
    }
  }

  void take_key(const YAML::Mark& mark, const std::string& key, bool quoted) {
    Open& map = open_.back();
    map.has_key = true;
    map.key = key;
    map.key_mark = place(mark);
    count(map.key_mark, 1);
    map.drop = true;
    if (key == "<<" && !quoted) {
      problems_.add(map.key_mark, "merge keys (<<) are not supported; write the keys out");
    } else if (const Node* first = std::as_const(map.node).find(key)) {
      problems_.add(map.key_mark, "the key '" + shown(key) + "' is there twice; first in line " +
                                      std::to_string(first->key_mark.line));
    } else {
      map.drop = false;
    }
  }

  void open(Node::Type type, const YAML::Mark& mark, const std::string& tag,
            YAML::anchor_t anchor) {
    check_tag(mark, tag);
    if (open_.size() >= kMaxDepth) {
      fail(mark, "lists and maps are nested deeper than " + std::to_string(kMaxDepth) + " levels");
    }
    Open container;
    container.node.type = type;
    container.node.mark = place(mark);
    container.anchor = anchor;
    container.is_key = expects_key();
    container.nodes_before = nodes_;
    count(container.node.mark, 1);
    open_.push_back(std::move(container));
  }

  void close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    if (done.anchor != YAML::NullAnchor) {
      anchors_[done.anchor] = {done.node, nodes_ - done.nodes_before};
    }
    if (done.is_key) {
      // yaml-cpp also takes an unclosed '[' for this, and only then notices the end of the file; so
      // it is an error of its own only if none follows.
      container_keys_.push_back(done.node.mark);
      open_.back().has_key = true;
      open_.back().drop = true;
      return;
    }
    attach(std::move(done.node));
  }

  void finish(Node node, YAML::anchor_t anchor) {
    count(node.mark, 1);
    if (anchor != YAML::NullAnchor) anchors_[anchor] = {node, 1};
    attach(std::move(node));
  }

  void attach(Node node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.type == Node::Type::kMap) {
      node.key = std::move(parent.key);
      node.key_mark = parent.key_mark;
      parent.has_key = false;
      if (parent.drop) return;
    }
    parent.node.items.push_back(std::move(node));
  }

  const MarkOf& mark_of_;
  Problems& problems_;
  Node root_;
  std::vector<Open> open_;
  std::vector<Mark> container_keys_;
  std::map<YAML::anchor_t, std::pair<Node, std::size_t>> anchors_;
  std::size_t nodes_ = 0;
  int documents_ = 0;
};

/// Length of the UTF-8 sequence at `at`, or 0 when there is none.
std::size_t utf8_length(const std::string& text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(at);
  const std::size_t length = first < 0x80    ? 1
                             : first < 0xc2  ? 0
                             : first < 0xe0  ? 2
                             : first < 0xf0  ? 3
                             : first <= 0xf4 ? 4
                                             : 0;
  if (length == 0 || at + length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xc0) != 0x80) return 0;
  }
  if (length > 2) {  // overlong forms, surrogates, beyond U+10FFFF
    const unsigned second = byte(at + 1);
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
        (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f)) {
      return 0;
    }
  }
  return length;
}

/// Refuses what is not text before the parser sees it.
bool check_text(const std::string& text, const MarkOf& mark_of, Problems& problems) {
  int line = 1;
  std::size_t line_start = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const std::size_t length = utf8_length(text, at);
    const bool control =
        (byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7f;
    if (length == 0 || control) {
      constexpr std::string_view kHex = "0123456789abcdef";
      const std::string hex = {'0', 'x', kHex[byte >> 4], kHex[byte & 15]};
      problems.add(mark_of(line, static_cast<int>(at - line_start) + 1),
                   "the byte " + hex +
                       (control ? " is a control character" : " is not valid UTF-8") +
                       "; a configuration is YAML text in UTF-8");
      return false;
    }
    at += length;
    if (byte == '\n') {
      ++line;
      line_start = at;
    }
  }
  return true;
}

/// Where to look when the parser stumbles: the cause often stands before the place it names.
std::string hint_before(const std::string& text, int last) {
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; number <= last && std::getline(lines, line); ++number) {
    const auto end = line.find_first_not_of(" \t\r");
    if (end == std::string::npos || line[end] == '#') continue;
    if (line.find('\t') < end) {
      return "; line " + std::to_string(number) +
             " is indented with a tab, where YAML allows only spaces";
    }
    const std::string code = line.substr(0, line.find(" #"));
    for (const char quote : {'"', '\''}) {
      if (std::count(code.begin(), code.end(), quote) % 2 != 0) {
        return "; line " + std::to_string(number) + " has an odd number of " +
               std::string(1, quote) + " quotes";
      }
    }
  }
  return "";
}

/// yaml-cpp's message in words for those who write YAML, not parsers.
std::string explain(const std::string& message) {
  namespace Msg = YAML::ErrorMsg;
  static const std::map<std::string, std::string> kWords = {
      {Msg::END_OF_MAP, "this does not fit the map above; check indentation and ':'"},
      {Msg::END_OF_MAP_FLOW, "expected ',' or '}' in a {...} map"},
      {Msg::END_OF_SEQ, "this does not fit the list above; check indentation and '-'"},
      {Msg::END_OF_SEQ_FLOW, "expected ',' or ']' in a [...] list"},
      {Msg::EOF_IN_SCALAR, "a quoted text is not closed before the end"},
      {Msg::DOC_IN_SCALAR, "a quoted text is not closed before the end of the document"},
      {Msg::UNKNOWN_TOKEN, "a text can't begin with this character; put it in quotes"},
      {Msg::TAB_IN_INDENTATION, "a tab in the indentation; YAML allows only spaces"},
      {Msg::FLOW_END, "this bracket closes nothing"},
      {Msg::BLOCK_ENTRY, "a '-' where no list item can stand; check the indentation"},
      {Msg::MAP_KEY, "a key where none can stand; check the indentation"},
      {Msg::MAP_VALUE,
       "a ':' where none can stand; check the indentation, and put texts that hold ': ' in quotes"},
      {Msg::UNKNOWN_ANCHOR, "this alias names no anchor"},
  };
  const auto known = kWords.find(message);
  return known == kWords.end() ? message : known->second;
}

}  // namespace

std::optional<Node> parse_yaml(const std::string& yaml, const MarkOf& mark_of, Problems& problems) {
  if (yaml.size() > kMaxBytes) {
    problems.add(mark_of(1, 1), "larger than 1 MiB; that is no configuration");
    return std::nullopt;
  }
  if (!check_text(yaml, mark_of, problems)) return std::nullopt;

  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  std::string text = yaml.starts_with(kByteOrderMark) ? yaml.substr(kByteOrderMark.size()) : yaml;
  // yaml-cpp takes a quote that is still open after the last line break for closed; a comment at
  // the end makes it complain.
  text += text.ends_with('\n') ? "#" : "\n#";
  std::istringstream stream(text);
  Builder builder(mark_of, problems);
  try {
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) {
      problems.add(mark_of(1, 1), "there is nothing in it; expected a configuration");
      return std::nullopt;
    }
    while (parser.HandleNextDocument(builder)) {  // the builder refuses a second one
    }
  } catch (const Stop&) {
    return std::nullopt;
  } catch (const YAML::Exception& error) {
    const int line = error.mark.line + 1;
    problems.add(mark_of(line, error.mark.column + 1),
                 "not valid YAML: " + explain(error.msg) + hint_before(yaml, line));
    return std::nullopt;
  }
  return builder.take();
}

}  // namespace gp
